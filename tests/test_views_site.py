"""The log-in page, the start page and the error pages of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client, RequestFactory
from django.views.defaults import server_error

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from scheduler.models import Task

pytestmark = pytest.mark.django_db

PASSWORD = "a long secret"


@pytest.fixture
def reader(reader: User) -> User:
    reader.set_password(PASSWORD)
    reader.save()
    return reader


def log_in(client: Client, **data: str) -> str:
    """Where the log-in page sends those who log in."""
    response = client.post("/accounts/login/", {"username": "reader", "password": PASSWORD, **data})
    assert response.status_code == 302
    return response.headers["Location"]


def test_people_who_are_not_staff_log_in_and_come_to_the_start_page(client: Client, reader: User) -> None:
    assert log_in(client) == "/"
    page = client.get("/").text
    assert "You are logged in as reader." in page
    assert 'href="/scheduler/"' not in page


def test_staff_finds_the_scheduler_on_the_start_page(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    assert 'href="/scheduler/"' in client.get("/").text


@pytest.mark.parametrize("page", ["https://example.org/", "//example.org/", "/\\example.org", "javascript:alert(1)"])
def test_the_log_in_page_sends_nobody_to_another_site(client: Client, reader: User, page: str) -> None:
    assert log_in(client, next=page) == "/"


def test_a_wrong_password_is_told_in_a_sentence_and_not_repeated_in_the_page(client: Client, reader: User) -> None:
    response = client.post("/accounts/login/", {"username": "reader", "password": "wrong words"})
    assert response.status_code == 200
    assert "Please enter a correct username and password" in response.text
    assert "wrong words" not in response.text


def test_the_log_in_page_asks_for_both_fields(client: Client) -> None:
    assert "Enter your user name and your password." in client.post("/accounts/login/", {}).text


def test_not_staff_is_told_whom_the_pages_are_for(client: Client, visitor: User) -> None:
    client.force_login(visitor)
    response = client.get("/scheduler/")
    assert response.status_code == 403
    assert "These pages are for staff only." in response.text


def test_a_missing_permission_is_told_with_the_tasks_name(client: Client, viewer: User, task: Task) -> None:
    client.force_login(viewer)
    response = client.post(f"/scheduler/tasks/{task.pk}/run/")
    assert response.status_code == 403
    assert "You may not do that with “Nightly report”." in response.text


def test_a_page_that_is_not_there_is_told_without_repeating_its_address(client: Client) -> None:
    response = client.get("/nowhere/%3Cscript%3E/")
    assert response.status_code == 404
    assert "There is no such page" in response.text
    assert "script" not in response.text


def test_an_error_of_the_server_is_told_without_a_traceback(rf: RequestFactory) -> None:
    response = server_error(rf.get("/"))
    assert response.status_code == 500
    assert "Something went wrong" in response.text
    assert "Traceback" not in response.text


def test_browsers_that_ask_for_an_icon_find_one(client: Client) -> None:
    assert client.get("/favicon.ico").headers["Location"] == "/static/scheduler/favicon.svg"


def test_logging_out_needs_a_form(reader: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(reader)
    assert client.get("/accounts/logout/").status_code == 405
    assert client.post("/accounts/logout/").status_code == 403
    token = client.get("/").context["csrf_token"]
    assert client.post("/accounts/logout/", {"csrfmiddlewaretoken": token}).headers["Location"] == "/"
