"""Every address crossed with every role, and the one rule behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.urls import reverse
from django.utils import timezone
from guardian.shortcuts import assign_perm

from scheduler import access, outputs, urls
from scheduler.models import (
    Alarm,
    Archive,
    OutputFile,
    Recurrence,
    Run,
    Schedule,
    SchedulerState,
    Task,
    TaskGroupObjectPermission,
    TaskUserObjectPermission,
)
from scheduler.models.task import TASK_PERMISSIONS
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

pytestmark = pytest.mark.django_db

# Address and method, and the answer for each role. "in" is a redirect to the log-in page, "ok" one
# to another page (an action was done), "none" the same when there was nothing that it may be done to.
# fmt: off
_ANSWERS = """
                        anonymous visitor   reader    stranger  peeker    viewer    runner    stopper   owner     admin
index             GET   in        403       403       200       200       200       200       200       200       200
index             POST  in        403       403       405       405       405       405       405       405       405
schedule          GET   in        403       403       200       200       200       200       200       200       200
schedule          POST  in        403       403       200       200       200       ok        200       ok        ok
task-run          GET   405       405       405       405       405       405       405       405       405       405
task-run          POST  in        403       403       404       404       403       ok        403       ok        ok
task-detail       GET   in        403       403       404       404       200       200       200       200       200
task-detail       POST  in        403       403       405       405       405       405       405       405       405
timeline          GET   in        403       403       200       200       200       200       200       200       200
timeline          POST  in        403       403       405       405       405       405       405       405       405
task-arguments    GET   401       403       403       405       405       405       405       405       405       405
task-arguments    POST  401       403       403       404       404       403       200       403       200       200
run-detail        GET   in        403       403       404       404       200       200       200       200       200
run-detail        POST  in        403       403       405       405       405       405       405       405       405
run-stop          GET   405       405       405       405       405       405       405       405       405       405
run-stop          POST  in        403       403       404       404       403       403       ok        ok        ok
run-again         GET   405       405       405       405       405       405       405       405       405       405
run-again         POST  in        403       403       404       404       403       ok        403       ok        ok
run-again-changed GET   in        403       403       404       404       403       200       403       200       200
run-again-changed POST  in        403       403       404       404       403       ok        403       ok        ok
run-archive       GET   405       405       405       405       405       405       405       405       405       405
run-archive       POST  in        403       403       404       404       403       403       403       ok        ok
run-delete        GET   in        403       403       404       404       403       403       403       200       200
run-delete        POST  in        403       403       404       404       403       403       403       ok        ok
run-log           GET   401       403       403       404       404       403       403       403       200       200
run-log           POST  401       403       403       405       405       405       405       405       405       405
run-log-download  GET   in        403       403       404       404       403       403       403       200       200
run-log-download  POST  in        403       403       405       405       405       405       405       405       405
file              GET   in        404       200       404       200       404       404       404       200       200
file              POST  405       405       405       405       405       405       405       405       405       405
task-slots        GET   in        403       403       404       404       200       200       200       200       200
task-slots        POST  in        403       403       405       405       405       405       405       405       405
task-pause        GET   in        403       403       404       404       403       403       403       200       200
task-pause        POST  in        403       403       404       404       403       403       403       ok        ok
schedule-pause    GET   in        403       403       404       404       403       403       403       200       200
schedule-pause    POST  in        403       403       404       404       403       403       403       ok        ok
pause             GET   in        403       403       403       403       403       403       403       403       200
pause             POST  in        403       403       403       403       403       403       403       403       ok
alarms            GET   in        403       403       200       200       200       200       200       200       200
alarms            POST  in        403       403       405       405       405       405       405       405       405
alarm-dismiss     GET   405       405       405       405       405       405       405       405       405       405
alarm-dismiss     POST  in        403       403       404       404       403       403       ok        ok        ok
alarms-dismiss    GET   405       405       405       405       405       405       405       405       405       405
alarms-dismiss    POST  in        403       403       none      none      none      none      ok        ok        ok
calendar          GET   in        403       403       200       200       200       200       200       200       200
calendar          POST  in        403       403       405       405       405       405       405       405       405
file-picture      GET   401       404       200       404       200       404       404       404       200       200
file-picture      POST  405       405       405       405       405       405       405       405       405       405
file-preview      GET   in        403       403       404       404       403       403       403       200       200
file-preview      POST  in        403       403       405       405       405       405       405       405       405
probe             GET   404       404       404       404       404       404       404       404       404       404
probe             POST  405       405       405       405       405       405       405       405       405       405
"""
# fmt: on
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
ROLES, *_ROWS = [line.split() for line in _ANSWERS.strip().splitlines()]
MATRIX = {(name, method): dict(zip(ROLES, answers, strict=True)) for name, method, *answers in _ROWS}


@dataclass
class World:
    task: Task
    running: Run
    finished: Run
    file: OutputFile
    picture: OutputFile
    schedule: Schedule
    alarm: Alarm

    def url(self, name: str) -> str:
        args: dict[str, list[object]] = {
            "index": [],
            "schedule": [],
            "task-run": [self.task.pk],
            "task-slots": [self.task.pk],
            "task-pause": [self.task.pk],
            "schedule-pause": [self.schedule.pk],
            "pause": [],
            "alarms": [],
            "alarms-dismiss": [],
            "alarm-dismiss": [self.alarm.pk],
            "calendar": [],
            "task-arguments": [self.task.pk],
            "task-detail": [self.task.pk],
            "timeline": [],
            "file": [self.file.pk],
            "file-picture": [self.picture.pk],
            "file-preview": [self.file.pk],
            "probe": ["a-name-that-nobody-signed"],
        }
        run = self.running if name == "run-stop" else self.finished
        return reverse(f"scheduler:{name}", args=args.get(name, [run.pk]))

    def state(self) -> object:
        """What no refused request may change."""
        runs = list(Run.objects.order_by("pk").values_list("pk", "status", "cancel_requested_at"))
        pauses = [list(model.objects.values_list("pk", "paused_at")) for model in (Schedule, Task)]
        alarms = list(Alarm.objects.values_list("pk", "dismissed_at"))
        return runs, pauses, SchedulerState.paused(), alarms, list(Archive.objects.values_list("pk"))

    def data(self, name: str) -> dict[str, object]:
        """What the page's form sends."""
        if name == "schedule":
            return {"task": self.task.pk, "when": "now", "time_zone": "UTC"}
        if name == "task-arguments":
            return {"name": "arguments"}
        if name == "alarms-dismiss":
            return {"up_to": self.alarm.pk}
        return {"why": "The disk is full."} if name.endswith("pause") else {}


@pytest.fixture
def world(task: Task, recurrence: Recurrence, make_run: Callable[..., Run]) -> World:
    finished = make_run(Status.COMPLETED)
    file = OutputFile.objects.create(run=finished, name="a.csv", size=1, sha256="0" * 64, created_at=finished.due_at)
    picture = OutputFile.objects.create(
        run=finished, name="a.gif", size=len(GIF), sha256="0" * 64, created_at=finished.due_at
    )
    contents = {outputs.file_path(file): b"x", outputs.file_path(picture): GIF, outputs.log_path(finished): b"x"}
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    schedule = Schedule.objects.create(task=task, recurrence=recurrence, time_zone="UTC")
    alarm = Alarm.raise_for(finished, Alarm.Kind.LATE, now=finished.due_at)
    return World(task, make_run(Status.PROCESSING), finished, file, picture, schedule, alarm)


@pytest.fixture
def peeker(task: Task) -> User:
    """Staff, may view the task's output but not the task."""
    user = User.objects.create_user("peeker", is_staff=True)
    task.grant(user, "view_output")
    return user


def test_the_matrix_knows_every_address() -> None:
    assert {name for name, _method in MATRIX} == {pattern.name for pattern in urls.urlpatterns}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("name", "method"), MATRIX)
def test_every_address_answers_every_role(
    client: Client, world: World, request: pytest.FixtureRequest, name: str, method: str, role: str
) -> None:
    expected = MATRIX[name, method][role]
    if role != "anonymous":
        client.force_login(request.getfixturevalue(role))
    before = world.state()
    response = client.get(world.url(name)) if method == "GET" else client.post(world.url(name), world.data(name))
    if response.streaming:
        assert b"".join(response) == (GIF if name == "file-picture" else b"x")
    answer = str(response.status_code)
    if response.status_code == 302:
        answer = "in" if response.headers["Location"].startswith(f"{reverse('login')}?next=") else "ok"
    assert answer == ("ok" if expected == "none" else expected)
    assert (world.state() != before) == (expected == "ok")


@pytest.mark.parametrize("name", ["index", "run-detail"])
def test_a_fragment_is_not_answered_with_the_log_in_page(client: Client, world: World, name: str) -> None:
    assert client.get(world.url(name), {"fragment": "1"}).status_code == 401


@pytest.mark.parametrize(
    "name",
    [
        *("task-run", "run-stop", "run-again", "run-again-changed", "run-archive", "run-delete", "schedule"),
        *("pause", "task-pause", "schedule-pause", "alarm-dismiss", "alarms-dismiss"),
    ],
)
def test_nothing_is_done_without_a_csrf_token(world: World, admin: User, name: str) -> None:
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(admin)
    before = world.state()
    response = client.post(world.url(name), world.data(name))
    assert response.status_code == 403
    assert "The form is too old" in response.text
    assert world.state() == before


@pytest.mark.parametrize(
    "name",
    [
        *("run-detail", "run-delete", "run-log", "run-stop", "task-run", "run-again"),
        *("task-detail", "task-slots", "task-pause", "schedule-pause", "alarm-dismiss"),
    ],
)
def test_what_is_not_there_and_what_may_not_be_seen_look_the_same(
    client: Client, world: World, stranger: User, name: str
) -> None:
    client.force_login(stranger)
    send = client.post if MATRIX[name, "GET"]["owner"] == "405" else client.get
    hidden = send(world.url(name))
    missing = send(reverse(f"scheduler:{name}", args=[999_999]))
    huge = send(reverse(f"scheduler:{name}", args=[10**30]))
    assert hidden.status_code == missing.status_code == huge.status_code == 404
    assert hidden.text == missing.text
    assert world.task.name not in hidden.text


def test_an_inactive_user_is_nobody(client: Client, world: World, owner: User) -> None:
    client.force_login(owner)
    User.objects.filter(pk=owner.pk).update(is_active=False)
    assert client.get(world.url("index")).status_code == 302
    assert client.get(world.url("file")).status_code == 302


def test_the_log_in_page_of_the_admin_serves_a_site_without_its_own(client: Client, settings: Any) -> None:
    settings.LOGIN_URL = "/there-is-none/"
    assert client.get(reverse("scheduler:index")).headers["Location"].startswith(f"{reverse('admin:login')}?next=")


# The rule itself


def test_staff_alone_grants_nothing(stranger: User, task: Task) -> None:
    assert not any(access.can(stranger, action, task) for action in TASK_PERMISSIONS)
    assert access.actions_on(stranger, [task]) == {task.pk: set()}


def test_the_owner_has_all_from_the_first_moment(owner: User, task: Task) -> None:
    assert access.actions_on(owner, [task]) == {task.pk: set(TASK_PERMISSIONS)}


def _give_globally(user: User, codename: str) -> None:
    user.user_permissions.add(Permission.objects.get(content_type__app_label="scheduler", codename=codename))


def _give_to_group(user: User, task: Task | None, codename: str) -> None:
    group = Group.objects.create(name=f"may {codename}")
    user.groups.add(group)
    if task is None:
        group.permissions.add(Permission.objects.get(content_type__app_label="scheduler", codename=codename))
    else:
        assign_perm(f"scheduler.{codename}", group, task)


@pytest.mark.parametrize("way", ["object", "group on object", "global", "group global"])
def test_all_ways_to_hold_a_permission_count_everywhere(way: str, visitor: User, task: Task, make_run: Any) -> None:
    other = Task.objects.create(name="Other", program_root="sample_tasks", program_path="countdown.py")
    match way:
        case "object":
            task.grant(visitor, "view_task")
        case "group on object":
            _give_to_group(visitor, task, "view_task")
        case "global":
            _give_globally(visitor, "view_task")
        case "group global":
            _give_to_group(visitor, None, "view_task")
    run = make_run()
    user = User.objects.get(pk=visitor.pk)
    everywhere = "global" in way
    assert access.can(user, "view_task", task)
    assert access.can(user, "view_task", other) == everywhere
    assert set(access.visible_tasks(user)) == ({task, other} if everywhere else {task})
    assert list(access.visible_runs(user)) == [run]
    assert access.actions_on(user, [task, other]) == {
        task.pk: {"view_task"},
        other.pk: {"view_task"} if everywhere else set(),
    }


def test_a_permission_of_another_app_with_the_same_codename_is_none(visitor: User, task: Task) -> None:
    foreign = Permission.objects.create(
        codename="run_task", name="x", content_type=Permission.objects.get(codename="add_user").content_type
    )
    # guardian's save() refuses such a row; a bulk insert or a restored backup does not.
    TaskUserObjectPermission.objects.bulk_create(
        [TaskUserObjectPermission(user=visitor, permission=foreign, content_object=task)]
    )
    assert not access.can(visitor, "run_task", task)
    assert access.actions_on(visitor, [task]) == {task.pk: set()}


def test_an_inactive_superuser_and_an_anonymous_visitor_may_nothing(admin: User, task: Task) -> None:
    admin.is_active = False
    for user in (admin, AnonymousUser()):
        assert not access.can(user, "view_task", task)
        assert not access.visible_runs(user).exists()
        assert access.actions_on(user, [task]) == {task.pk: set()}


def test_an_unknown_action_is_a_mistake_of_the_programmer(admin: User) -> None:
    with pytest.raises(ValueError, match="not an action"):
        access.tasks_with(admin, "veiw_task")


def test_a_page_of_tasks_costs_as_many_queries_as_one(
    viewer: User, task: Task, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    tasks = [task]
    for number in range(20):
        tasks.append(
            Task.objects.create(name=f"Task {number}", program_root="sample_tasks", program_path="countdown.py")
        )
    with django_assert_num_queries(4):  # global permissions of the user and of the groups, then both on the tasks
        allowed = access.actions_on(viewer, tasks)
    assert allowed[task.pk] == {"view_task"}
    assert not allowed[tasks[-1].pk]


@pytest.mark.parametrize("few", [0, 300])
def test_the_first_runs_in_some_order_are_those_that_may_be_seen(
    viewer: User, task: Task, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(access, "FEW", few)
    hidden = Task.objects.create(name="Hidden", program_root="sample_tasks", program_path="countdown.py")
    now = timezone.now()
    mine = [each.start_now(by=None, now=now).pk for each in (task, hidden, task)][::2]
    runs = access.listed_runs(viewer)
    assert list(runs.order_by("id").values_list("pk", flat=True)[:2]) == mine
    assert list(runs.order_by("-id").values_list("pk", flat=True)[:1]) == mine[1:]
    assert runs.count() == 2
    assert access.listed_runs(User.objects.create_superuser("root")).count() == 3
    assert not access.listed_runs(User.objects.create_user("nobody")).exists()
    assert not access.listed_runs(User.objects.create_superuser("gone", is_active=False)).exists()


def test_what_one_of_several_groups_may_do_somewhere_is_found(stranger: User, task: Task) -> None:
    groups = [Group.objects.create(name=f"Group {number}") for number in range(4)]
    stranger.groups.set(groups[:3])
    for group, action in ((groups[1], "run_task"), (groups[2], "view_task"), (groups[3], "stop_run")):
        permission = Permission.objects.get(codename=action, content_type__app_label="scheduler")
        TaskGroupObjectPermission.objects.create(group=group, permission=permission, content_object=task)
    may = {action for action in access.ACTIONS if access.anywhere(stranger, action)}
    assert may == {"run_task", "view_task"}
    assert {action for action in access.ACTIONS if access.tasks_with(stranger, action).exists()} == may
