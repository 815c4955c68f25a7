"""Alarms on the pages: who sees them, and who may dismiss them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.urls import reverse

from scheduler.models import Alarm, Run, Task
from scheduler.states import Reason, Status
from tests.chain import at

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    MakeRun = Callable[..., Run]

pytestmark = pytest.mark.django_db

INDEX = "/scheduler/"
ALL = "/scheduler/alarms/"


def an_alarm(make_run: MakeRun, **values: object) -> Alarm:
    run = make_run(Status.SKIPPED, reason=Reason.TOO_LATE, **values)
    return Alarm.raise_for(run, Alarm.Kind.MISSED, now=at("08:00"))


def test_an_open_alarm_stands_on_the_main_page_with_its_run(
    client: Client, viewer: User, stranger: User, make_run: MakeRun
) -> None:
    alarm = an_alarm(make_run)
    assert alarm.run is not None
    client.force_login(viewer)
    for address in (INDEX, ALL):
        page = client.get(address).text
        assert f'href="{alarm.run.get_absolute_url()}" id="alarm-{alarm.pk}-run"' in page
        assert "Not run: it was too late for it" in page
        assert "Dismiss" not in page
    client.force_login(stranger)
    for address in (INDEX, ALL):
        assert "Nightly report" not in client.get(address).text


@pytest.mark.parametrize("person", ["owner", "stopper"])
def test_it_is_dismissed_by_who_may_stop_or_change_and_it_is_kept_who_did(
    client: Client, make_run: MakeRun, request: pytest.FixtureRequest, person: str
) -> None:
    alarm = an_alarm(make_run)
    client.force_login(request.getfixturevalue(person))
    assert f"Dismiss alarm #{alarm.pk}" in client.get(INDEX).text
    answer = client.post(reverse("scheduler:alarm-dismiss", args=[alarm.pk]), {"from": "index"})
    assert answer.headers["Location"] == INDEX
    assert f'id="alarm-{alarm.pk}"' not in client.get(INDEX).text
    assert "No alarm is open." in client.get(ALL).text
    page = client.get(ALL, {"all": "1"}).text
    assert f"dismissed by {person}, <time" in page


def test_the_first_who_dismissed_it_stands(client: Client, owner: User, stopper: User, make_run: MakeRun) -> None:
    alarm = an_alarm(make_run)
    for person in (stopper, owner):
        client.force_login(person)
        page = client.post(reverse("scheduler:alarm-dismiss", args=[alarm.pk]), follow=True).text
    assert "The alarm was dismissed already." in page
    alarm.refresh_from_db()
    assert alarm.dismissed_by == stopper
    stopper.delete()
    after = Alarm.objects.get()
    assert after.dismissed_by is None
    assert after.dismissed_by_name == "stopper"


def test_dismissing_all_leaves_those_of_others_and_those_that_came_later(
    client: Client, stopper: User, make_run: MakeRun
) -> None:
    other = Task.objects.create(name="Other", program_root="sample_tasks", program_path="countdown.py")
    other.grant(stopper, "view_task")
    hidden = Task.objects.create(name="Hidden", program_root="sample_tasks", program_path="countdown.py")
    hidden.grant(stopper, "stop_run")
    mine, foreign, unseen = an_alarm(make_run), an_alarm(make_run, task=other), an_alarm(make_run, task=hidden)
    shown = an_alarm(make_run)
    client.force_login(stopper)
    assert f'name="up_to" value="{shown.pk}"' in client.get(ALL).text
    later = an_alarm(make_run)
    client.post(reverse("scheduler:alarms-dismiss"), {"up_to": shown.pk})
    assert set(Alarm.objects.open()) == {foreign, unseen, later}
    mine.refresh_from_db()
    assert mine.dismissed_by == stopper


@pytest.mark.parametrize("up_to", ["", "x", "-1", "9" * 40])
def test_dismissing_all_of_nothing_dismisses_nothing(
    client: Client, owner: User, make_run: MakeRun, up_to: str
) -> None:
    an_alarm(make_run)
    client.force_login(owner)
    assert client.post(reverse("scheduler:alarms-dismiss"), {"up_to": up_to}).status_code == 302
    assert Alarm.objects.open().count() == 1


def test_the_main_page_shows_the_newest_few_and_the_other_page_all_of_them(
    client: Client, owner: User, make_run: MakeRun
) -> None:
    alarms = [an_alarm(make_run) for _ in range(60)]
    client.force_login(owner)
    page = client.get(INDEX).text
    assert page.count('<li id="alarm-') == 5
    assert "More alarms" in page
    first = client.get(ALL).text
    assert first.count('<li id="alarm-') == 50
    assert f"before={alarms[10].pk}" in first
    assert client.get(ALL, {"before": alarms[10].pk}).text.count('<li id="alarm-') == 10


def test_an_alarm_without_a_run_is_shown_with_its_sentence(client: Client, owner: User, task: Task) -> None:
    Alarm.objects.create(task=task, kind="bad_rule", at=at("08:00"), text="<script>alert(1)</script> is no line.")
    client.force_login(owner)
    page = client.get(INDEX).text
    assert "A schedule was disabled: &lt;script&gt;" in page
