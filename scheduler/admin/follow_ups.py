"""What runs when a task has ended, as a part of the task's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import Exists, OuterRef
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import FollowUp, Task

from . import theme
from .base import PartOfTask

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import Field, Model, QuerySet
    from django.http import HttpRequest

    BaseInlineFormSet = forms.BaseInlineFormSet[FollowUp, Task, forms.ModelForm[FollowUp]]
    ModelForm = forms.ModelForm[FollowUp]
    TabularInline = theme.TabularInline[FollowUp, Task]
    ModelChoiceField = forms.ModelChoiceField[Task]
else:
    BaseInlineFormSet = forms.BaseInlineFormSet
    ModelChoiceField = forms.ModelChoiceField
    ModelForm = forms.ModelForm
    TabularInline = theme.TabularInline

HIDDEN = _("a task that you may not see")


class TaskChoice(ModelChoiceField):
    """Tasks by name; one that this person may not see has none."""

    may_see = True

    def label_from_instance(self, obj: Model) -> str:
        return str(obj) if self.may_see else str(HIDDEN)


class FollowUpForm(ModelForm):
    """Whoever enters it must be allowed to run what follows; one of somebody who was stays as it is."""

    user: ClassVar[User | AnonymousUser]

    class Meta:
        model = FollowUp
        fields = ("on", "then")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        then = self.fields.get("then")
        if then is None:  # to look at only
            return
        assert isinstance(then, TaskChoice)
        if self.instance.pk is not None and not vars(self.instance)["may_run"]:
            then.queryset = Task.objects.filter(pk=self.instance.then_id)
            then.may_see = vars(self.instance)["may_see"]
            for field in self.fields.values():
                field.disabled = True
        else:
            then.queryset = runnable(self.user).order_by("name")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        then, task = cleaned.get("then"), self.instance.task_id and self.instance.task
        if then is not None and task and not self.fields["then"].disabled:
            way = FollowUp(pk=self.instance.pk, task=task, then=then).way_back()
            if way:
                seen = set(access.visible_tasks(self.user).filter(pk__in=[each.pk for each in way]))
                names = [each.name if each in seen else str(HIDDEN) for each in way]
                self.add_error("then", FollowUp.circle(names))
        return cleaned


def runnable(user: User | AnonymousUser) -> QuerySet[Task]:
    """The tasks that a person may let follow another one."""
    return access.tasks_with(user, "run_task") & access.visible_tasks(user)


class FollowUpFormSet(BaseInlineFormSet):
    def add_fields(self, form: Any, index: int | None) -> None:
        """Each field says its name to a screen reader by itself: the admin's table has it in a heading only."""
        super().add_fields(form, index)
        for field in form.fields.values():
            if field.label and not field.widget.is_hidden:
                field.widget.attrs["aria-label"] = field.label


class FollowUpInline(PartOfTask, TabularInline):
    model = FollowUp
    form = FollowUpForm
    formset = FollowUpFormSet
    fk_name = "task"
    hide_title = True  # in unfold; in Django's admin a style sheet does it
    extra = 1
    verbose_name_plural = _("follow-ups: what runs when this task has ended")
    readonly_fields = ("then_name",)
    # A list of ten thousand tasks in each row would be no help; TaskAdmin finds those that one may run.
    autocomplete_fields = ("then",)

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name != "then":
            return super().formfield_for_dbfield(db_field, request, **kwargs)
        field = super().formfield_for_dbfield(
            db_field,
            request,
            **kwargs,
            form_class=TaskChoice,
            label=capfirst(_("run then")),
            help_text=_("It runs with its own arguments. You can choose among the tasks that you may run."),
            error_messages={"invalid_choice": _("Choose a task that you may see and run.")},
        )
        # Each of them leads away from a page that is being filled in.
        assert field is not None
        for link in ("add", "change", "delete", "view"):
            setattr(field.widget, f"can_{link}_related", False)
        return field

    def get_fields(self, request: HttpRequest, obj: Task | None = None) -> tuple[str, ...]:
        return ("on", "then") if obj is None or self.has_change_permission(request, obj) else ("on", "then_name")

    def get_formset(self, request: HttpRequest, obj: Task | None = None, **kwargs: Any) -> Any:
        kwargs["form"] = type("FollowUpForm", (FollowUpForm,), {"user": request.user})
        return super().get_formset(request, obj, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[FollowUp]:
        rows: QuerySet[FollowUp] = super().get_queryset(request)
        return rows.select_related("then").annotate(
            may_see=Exists(access.visible_tasks(request.user).filter(pk=OuterRef("then"))),
            may_run=Exists(runnable(request.user).filter(pk=OuterRef("then"))),
        )

    @admin.display(description=_("run then"))
    def then_name(self, row: FollowUp) -> str:
        return row.then.name if vars(row).get("may_see") else gettext("a task that you may not see")
