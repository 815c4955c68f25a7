"""The Content-Security-Policy is on every page, and no page needs an exception from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from conf.csp import POLICY, ContentSecurityPolicy

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client
    from pytest_django.fixtures import Settings


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/admin/login/", "/scheduler/", "/nowhere/"])
def test_every_answer_carries_it(client: Client, path: str) -> None:
    assert client.get(path)["Content-Security-Policy"] == POLICY


def test_it_allows_no_inline_code_and_no_other_site() -> None:
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert "*" not in POLICY


def test_pages_for_staff_carry_it(client: Client, admin: User) -> None:
    client.force_login(admin)
    for path in ("/scheduler/", "/admin/", "/admin/scheduler/task/add/"):
        assert client.get(path)["Content-Security-Policy"] == POLICY


def test_a_stricter_policy_of_a_download_stays() -> None:
    own = ContentSecurityPolicy(lambda _request: HttpResponse(headers={"Content-Security-Policy": "sandbox"}))
    assert own(RequestFactory().get("/")).headers["Content-Security-Policy"] == "sandbox"


def test_only_a_developers_error_page_is_without(settings: Settings) -> None:
    page = ContentSecurityPolicy(lambda _request: HttpResponse(status=500))
    assert "Content-Security-Policy" in page(RequestFactory().get("/")).headers
    settings.DEBUG = True
    assert "Content-Security-Policy" not in page(RequestFactory().get("/")).headers
