"""The project's addresses: the site's own pages at ``/``, the admin, the scheduler."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.templatetags.static import static
from django.urls import include, path
from django.utils.translation import gettext_lazy as _
from django.views.generic import RedirectView

# Without a log-in page of its own, only staff could download what they may see: the admin's page refuses the others.
login = auth_views.LoginView.as_view(
    redirect_authenticated_user=True, extra_context={"title": _("Log in"), "site_title": _("Task scheduler")}
)


class Favicon(RedirectView):
    """What browsers ask for on pages that name no icon, such as the admin's."""

    def get_redirect_url(self, *args: object, **kwargs: object) -> str:
        return static("scheduler/favicon.svg")


urlpatterns = [
    path("", include("demo.urls")),
    path("accounts/login/", login, name="login"),
    path("accounts/logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("scheduler/", include("scheduler.urls")),
    path("favicon.ico", Favicon.as_view()),
]
