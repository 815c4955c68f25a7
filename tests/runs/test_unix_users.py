"""Programs that run as another Unix user than the poller; only root can try that."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.executors.launches import SUPERVISOR
from scheduler.models import RunEvent
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol
from scheduler.supervisor.folder import RunFolder

from .conftest import fresh, is_alive, wait_until

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


def test_it_has_the_limits_of_its_task(nobodys: World) -> None:
    run = nobodys.run(
        "import os, resource; print(os.getuid(), resource.getrlimit(resource.RLIMIT_NOFILE))", open_files=99
    )
    assert nobodys.log(run) == f"{pwd.getpwnam(NOBODY).pw_uid} (99, 99)\n"


def test_a_limit_of_the_whole_run_cannot_be_lifted_by_it(nobodys: World, cgroup: Path) -> None:
    run = nobodys.run(
        """
        import os
        place = os.environ["FOLDER"] + "/cgroups/run-" + os.environ["SCHEDULER_RUN"]
        print(sorted(os.listdir(place))[0])
        for name in ("pids.max", "cgroup.procs"):
            try:
                open(place + "/" + name, "w").write("max")
            except OSError as error:
                print(error.strerror)
        os.fork()
        """,
        max_processes=1,
    )
    assert nobodys.log(run).startswith("cgroup.controllers\nPermission denied\nPermission denied\n")
    assert (run.exit_code, run.limits_reached) == (1, {"processes": 1})


def test_its_clean_up_command_has_the_same_user(nobodys: World) -> None:
    show = "import os; print(os.getuid(), os.environ['USER'])"
    (nobodys.programs / "cleanup.py").write_text(show)
    run = nobodys.run(show, cleanup_root="programs", cleanup_path="cleanup.py")
    who = f"{pwd.getpwnam(NOBODY).pw_uid} {NOBODY}\n"
    assert nobodys.log(run) == f"{who}[scheduler] clean-up\n{who}"


def test_an_unknown_user_is_a_launch_error_in_one_sentence(nobodys: World, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_USERS": {"programs": "no-such-user"}}
    run = nobodys.run("print('never')")
    assert run.reason == Reason.LAUNCH_ERROR
    assert "no-such-user" in run.sentence


def test_a_poller_without_root_needs_four_capabilities_and_hands_none_on() -> None:
    """As the systemd drop-in for task users has it: the supervisor of a poller that is not root."""
    if os.geteuid() != 0:
        pytest.skip("giving capabilities needs root: NOT TESTED HERE")
    poller, task = pwd.getpwnam("daemon"), pwd.getpwnam(NOBODY)
    with tempfile.TemporaryDirectory(prefix="scheduler-capabilities-") as name:
        top = Path(name)
        top.chmod(0o755)
        code, store, runs = top / "supervisor", top / "store", top / "runs"
        shutil.copytree(SUPERVISOR, code)  # the checkout may lie where daemon cannot look
        for place in (store, runs):
            place.mkdir(mode=0o711)
            os.chown(place, poller.pw_uid, poller.pw_gid)
        program = top / "program.py"
        program.write_text(
            textwrap.dedent(
                """
                import os
                capabilities = open("/proc/self/status").read().split("CapPrm:")[1].split()[0]
                print(os.getresuid(), os.getgroups(), int(capabilities, 16))
                open("result", "w").write("x")
                os.chmod("result", 0)
                """
            )
        )
        folder = RunFolder(str(runs / "run"))
        folder.make((task.pw_uid, task.pw_gid))
        os.chown(folder.path, poller.pw_uid, poller.pw_gid)
        folder.write(
            protocol.SPEC,
            {
                "run": "run",
                "id": 1,
                "claim_token": "t",
                "argv": ["/usr/bin/python3", str(program)],
                "user": {"uid": task.pw_uid, "gid": task.pw_gid, "groups": [task.pw_gid]},
                "grace_seconds": 1,
                "log": str(store / "log"),
                "log_bytes": 10_000,
                "store": str(store),
                "output_bytes": 10_000,
                "output_files": 10,
                "wake": str(top),
            },
        )
        os.chown(folder.file(protocol.SPEC), poller.pw_uid, poller.pw_gid)
        capabilities = "+setuid,+setgid,+chown,+kill"
        as_poller = ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups"]
        as_poller += [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]
        launch = [*as_poller, "/usr/bin/python3", "-I", "-S", "-X", "utf8", str(code), folder.path]
        subprocess.run(launch, check=True, env={"PATH": os.defpath})
        wait_until(lambda: folder.has(protocol.DONE), "the files are collected")
        wait_until(lambda: folder.lock_holder() is None, "the supervisor is gone")
        assert (store / "log").read_text() == f"{(task.pw_uid,) * 3} [{task.pw_gid}] 0\n"
        done = folder.read(protocol.DONE)
        assert done is not None
        assert done["problems"] == []
        [file] = done["files"]
        found = (store / file["id"]).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (poller.pw_uid, 0o640)
