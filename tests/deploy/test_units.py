"""deploy/systemd/: what systemd itself says about the units, and what tasks rely on in them.

No systemd has to run for that: ``verify`` and ``security --offline`` read files. What the units' command lines do is
tried by test_poller_unit.py and test_deploy_page.py, which start them as systemd would.
"""

from __future__ import annotations

import configparser
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from .site import DEPLOY, PROJECT, exec_line, fill_in, need

if TYPE_CHECKING:
    from pathlib import Path

WEB, POLLER = "scheduler-web.service", "scheduler-poller.service"
TASK_USERS = "scheduler-poller.service.d/task-users.conf"
RUNS, LIMITS = "scheduler-runs.service", "scheduler-poller.service.d/limits.conf"
# systemd's own scale: 0 is no exposure at all, 10 a service without any protection; "OK" ends at 5.
EXPOSURE_AT_MOST = {WEB: 1.5, POLLER: 3.5, RUNS: 1.5}


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with the documented defaults, but with programs that are here."""
    variables = {
        "GUNICORN_SOCKET": "/run/scheduler-web/gunicorn.sock",
        "PROJECT": str(PROJECT),
        "STATE": "/var/lib/scheduler",
        "ENVIRONMENT": "/etc/scheduler/environment",
        "WEB_USER": "scheduler-web",
        "POLLER_USER": "scheduler",
        "STORE_GROUP": "scheduler-store",
    }
    for name in (WEB, POLLER, RUNS):
        (tmp_path / name).write_text(fill_in(DEPLOY / "systemd" / name, variables))
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    need("systemd-analyze")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def service(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser["Service"]


@pytest.mark.parametrize("name", [WEB, POLLER, RUNS])
@pytest.mark.parametrize("drop_ins", [(), (TASK_USERS,), (TASK_USERS, LIMITS)], ids=len)
def test_systemd_understands_every_line(units: Path, name: str, drop_ins: tuple[str, ...]) -> None:
    for drop_in in drop_ins:
        (units / drop_in).parent.mkdir(exist_ok=True)
        (units / drop_in).write_text(fill_in(DEPLOY / "systemd" / drop_in, {}))
    done = analyze("verify", "--man=no", "--recursive-errors=no", units / name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", [WEB, POLLER, RUNS])
def test_little_is_exposed(units: Path, name: str) -> None:
    done = analyze("security", "--offline=true", "--no-pager", units / name)
    [exposure] = re.findall(rf"Overall exposure level for {re.escape(name)}: ([\d.]+)", done.stdout)
    assert float(exposure) <= EXPOSURE_AT_MOST[name], done.stdout


def test_systemd_would_say_so_if_more_were_exposed(units: Path) -> None:
    unit = units / POLLER
    unit.write_text(re.sub(r"^(Protect|Restrict|Capability|SystemCall|Private).*\n", "", unit.read_text(), flags=re.M))
    done = analyze("security", "--offline=true", "--no-pager", unit)
    [exposure] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) > EXPOSURE_AT_MOST[POLLER]


def test_tasks_outlive_the_poller_and_can_live_with_its_sandbox(units: Path) -> None:
    poller = service(units / POLLER)
    assert (poller["Type"], poller["NotifyAccess"]) == ("notify", "main")
    assert int(poller["WatchdogSec"]) > 0
    assert poller["KillMode"] == "process"
    assert poller["OOMPolicy"] == "continue"
    assert poller["Restart"] == "always"
    assert poller["RuntimeDirectoryPreserve"] == "yes"
    for name in ("PrivateTmp", "MemoryDenyWriteExecute", "RestrictSUIDSGID", "ProtectProc", "PrivateUsers"):
        assert name not in poller
    assert "/var/lib/scheduler" in poller["ReadWritePaths"].split()
    assert poller["SupplementaryGroups"] == "scheduler-store"


def test_limited_runs_outlive_the_poller_and_take_no_others_along(units: Path) -> None:
    runs = service(units / RUNS)
    assert (runs["User"], runs["Delegate"], runs["OOMPolicy"]) == ("scheduler", "memory pids", "continue")
    poller = service(DEPLOY / "systemd" / LIMITS)
    assert poller["Slice"] == runs["Slice"]
    place = f"/sys/fs/cgroup/{runs['Slice']}/{RUNS}"
    assert poller["Environment"] == f"SCHEDULER_CGROUP={place}"
    assert poller["ReadWritePaths"] == f"-{place}"
    assert place in exec_line((units / RUNS).read_text())[-1]
    # A cgroup with limited ones inside it holds no process: in the poller's own unit it could not be started again.
    assert "Delegate" not in service(units / POLLER)


def test_the_web_pages_run_as_a_user_of_their_own_without_any_power(units: Path) -> None:
    web = service(units / WEB)
    assert web["User"] != service(units / POLLER)["User"]
    assert web["CapabilityBoundingSet"] == web["AmbientCapabilities"] == ""
    assert "ReadWritePaths" not in web
    line = exec_line((units / WEB).read_text())
    assert line[line.index("--worker-class") + 1] == "gthread"
    assert line[line.index("--bind") + 1].startswith("unix:/run/scheduler-web/")


def test_other_users_for_tasks_need_four_capabilities_and_no_more() -> None:
    given = service(DEPLOY / "systemd" / TASK_USERS)
    expected = {"CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_KILL"}
    assert set(given["CapabilityBoundingSet"].split()) == set(given["AmbientCapabilities"].split()) == expected


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [DEPLOY / "fill-in", DEPLOY / "systemd" / WEB],
        env={"PATH": "/usr/bin:/bin", "PROJECT": "/opt/scheduler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs GUNICORN_SOCKET" in done.stderr
    assert done.stdout == ""
