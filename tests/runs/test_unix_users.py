"""Programs that run as another Unix user than the poller; only root can try that."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.models import RunEvent
from scheduler.states import Reason, Status

from .conftest import fresh, is_alive

if TYPE_CHECKING:
    from .conftest import World

NOBODY = "nobody"


@pytest.fixture
def nobodys(world: World, settings: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose programs run as ``nobody``, and whose store is for another group."""
    if os.geteuid() != 0:
        pytest.skip("changing the Unix user needs root: NOT TESTED HERE")
    settings.SCHEDULER = {
        **settings.SCHEDULER,
        "PROGRAM_USERS": {"programs": NOBODY},
        "STORE_GROUP": grp.getgrnam("www-data").gr_name,
    }
    # The interpreter of the tests may lie in a home folder; Debian's is everybody's.
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    return world


def test_a_program_runs_as_its_folders_user_and_its_files_go_to_the_stores_group(nobodys: World) -> None:
    run = nobodys.run(
        """
        import json, os
        print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ["USER"])
        print(open("/proc/self/status").read().split("CapEff:")[1].split()[0])
        open("result", "w").write("x")
        os.mkdir("deep", 0o700)
        open("deep/secret", "w").write("y")
        os.chmod("deep/secret", 0o000)
        print(json.dumps({"message": "hello"}), file=open(os.environ["SCHEDULER_REPORTS"], "a"))
        """
    )
    account = pwd.getpwnam(NOBODY)
    first, second = nobodys.log(run).splitlines()
    assert first.startswith(f"({account.pw_uid}, {account.pw_uid}, {account.pw_uid}) ({account.pw_gid}, ")
    assert first.endswith(f"[{account.pw_gid}] {NOBODY}")
    assert int(second, 16) == 0
    assert run.message == "hello"
    assert {file.name for file in run.files.all()} == {"result", "deep_secret"}
    for file in run.files.all():
        found = outputs.file_path(file).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, grp.getgrnam("www-data").gr_gid, 0o640)


def test_it_cannot_touch_the_run_folder_or_its_log(nobodys: World) -> None:
    run = nobodys.run(
        """
        import os
        folder = os.path.dirname(os.environ["SCHEDULER_REPORTS"])
        for attempt in (
            lambda: open(folder + "/stop.json", "w"),
            lambda: open(folder + "/spec.json"),
            lambda: os.unlink(folder + "/task.json"),
            lambda: os.rename(folder + "/output", folder + "/other"),
            lambda: os.listdir(folder),
            lambda: os.kill(os.getppid(), 9),
        ):
            try:
                attempt()
            except PermissionError:
                print("refused")
        """
    )
    assert run.status == Status.COMPLETED
    assert nobodys.log(run) == "refused\n" * 6


def test_a_file_of_another_user_stays_behind(nobodys: World) -> None:
    task = nobodys.task(
        """
        import os, time
        print("ready", flush=True)
        while not os.path.exists(os.environ["FOLDER"] + "/go"):
            time.sleep(0.02)
        """
    )
    run, poller = nobodys.start(task), nobodys.poller()
    nobodys.until(lambda: outputs.log_path(run).exists() and "ready" in nobodys.log(run), "it runs", poller=poller)
    # As if root had written a file into a folder of the user, who has then moved it here.
    with open(os.path.join(outputs.run_folder(run.uuid).file("output"), "roots"), "w") as out:
        out.write("of root")
    (nobodys.folder / "go").touch()
    run = nobodys.finish(run, poller=poller)
    assert run.files.count() == 0
    assert "belongs to another user" in run.events.get(what=RunEvent.What.NOT_COLLECTED).text


def test_it_is_stopped_with_its_tree(nobodys: World) -> None:
    task = nobodys.task(
        """
        import signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(subprocess.Popen(["sleep", "300"], start_new_session=True).pid, flush=True)
        time.sleep(300)
        """
    )
    run, poller = nobodys.start(task), nobodys.poller()
    nobodys.until(lambda: outputs.log_path(run).exists() and nobodys.log(run), "it runs", poller=poller)
    fresh(run).cancel(by=nobodys.owner, now=timezone.now())
    assert nobodys.finish(run, poller=poller).status == Status.CANCELLED
    assert not is_alive(int(nobodys.log(run)))


def test_an_unknown_user_is_a_launch_error_in_one_sentence(nobodys: World, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_USERS": {"programs": "no-such-user"}}
    run = nobodys.run("print('never')")
    assert run.reason == Reason.LAUNCH_ERROR
    assert "no-such-user" in run.sentence
