"""The whole test run: install what is missing, run pytest on SQLite and again on PostgreSQL, say how both ended.

Standard library only: it runs before anything is installed. ``tests/run`` starts it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from conf.environment import PROJECT, PYTHON, SetUpError, environment, prepare, say
from tests import servers

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

NO_TESTS = 5  # pytest's exit code when the arguments select no test
SUMMARY = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b")


def main(arguments: list[str] | None = None) -> int:
    """Run the tests; the exit code is 0 when every test passed on every database asked for."""
    parser = argparse.ArgumentParser(
        prog="tests/run",
        description="Install what is missing, then run every test on SQLite and again on PostgreSQL.",
        epilog="All other arguments go on to pytest, such as a file, -k WORD or -x.",
        allow_abbrev=False,
    )
    parser.add_argument("--sqlite", action="store_true", help="on SQLite only")
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL only")
    parser.add_argument("--full", action="store_true", help="the long versions too (SCHEDULER_TESTS_FULL=1)")
    parser.add_argument(
        "--soak",
        type=int,
        metavar="N",
        help="instead of the tests: start N runs at random, kill at random, and say whether anything was lost "
        "(on SQLite unless --postgresql is given)",
    )
    parser.add_argument("--install-only", action="store_true", help="install what is missing, and run nothing")
    options, for_pytest = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _install_debian_packages()
        prepare("requirements.txt", "requirements-test.txt")
        if options.install_only:
            return 0
        if options.soak is not None:
            return _soak(options.soak, for_pytest, sqlite=options.sqlite, postgresql=options.postgresql)
        both = options.sqlite == options.postgresql
        endings: dict[str, tuple[int, str]] = {}
        if both or options.sqlite:
            endings["SQLite"] = _pytest("SQLite", for_pytest, full=options.full)
        if both or options.postgresql:
            endings["PostgreSQL"] = _on_postgresql(for_pytest, full=options.full)
    except SetUpError as error:
        say(f"tests/run: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    say("")
    for name, (_code, summary) in endings.items():
        say(f"{name}: {summary}")
    return max((code for code, _summary in endings.values()), default=0)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which only this process got; Ctrl-C in a terminal reaches pytest by itself."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


# Installing


def _missing_packages() -> list[str]:
    """Debian's names of what the tests start and cannot find."""
    wanted = {
        "postgresql": servers.postgresql_folder() is not None,
        "nginx-light": servers.program("nginx") is not None,
        "chromium": servers.program("chromium") is not None,
        "python3-venv": importlib.util.find_spec("ensurepip") is not None or PYTHON.exists(),
    }
    return [name for name, found in wanted.items() if not found]


def _install_debian_packages() -> None:
    missing = _missing_packages()
    if not missing:
        return
    become_root = _root_prefix()
    if become_root is None:
        say(f"Not installed: {', '.join(missing)}. Tests that need them cannot run.")
    else:
        say(f"Installing Debian packages: {', '.join(missing)} …")
        quiet = ["-qq", "-o", "Dpkg::Use-Pty=0"]
        for command in (["update", *quiet], ["install", "--yes", "--no-install-recommends", *quiet, *missing]):
            # sudo keeps no environment, hence env.
            argv = [*become_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *command]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                say(f"apt-get {command[0]} failed:\n{(done.stdout + done.stderr).strip()}")
                break
        missing = _missing_packages()
    if missing and servers.in_ci():
        raise SetUpError(f"Not installed, and in CI no test may be skipped for it: {', '.join(missing)}.")


def _root_prefix() -> list[str] | None:
    """What goes before apt-get; None where this user may not install packages."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n"]
    return None


# Running


def _on_postgresql(arguments: list[str], *, full: bool) -> tuple[int, str]:
    if servers.postgresql_folder() is None:
        # In CI the installation has failed before.
        say("\n*** PostgreSQL is not installed: NOTHING was tested on it. ***")
        return 0, "NOT TESTED, it is not installed"
    try:
        with servers.postgresql() as url:
            return _pytest("PostgreSQL", arguments, full=full, DATABASE_URL=url)
    except RuntimeError as error:
        raise SetUpError(f"A PostgreSQL for the tests could not be started. {error}") from error


def _soak(runs: int, arguments: list[str], *, sqlite: bool, postgresql: bool) -> int:
    """The soak of tests/soak.py, which takes further arguments such as --seed; its last line is the last one here."""
    command = [str(PYTHON), "-m", "tests.soak", str(runs), *arguments]
    code = 0
    if sqlite or not postgresql:
        say("\n*** On SQLite ***")
        code = subprocess.run(command, cwd=PROJECT, env=_clean_environment(), check=False).returncode
    if postgresql:
        say("\n*** On PostgreSQL ***")
        try:
            with servers.postgresql() as url:
                settings = _clean_environment() | {"DATABASE_URL": url}
                code = subprocess.run(command, cwd=PROJECT, env=settings, check=False).returncode or code
        except RuntimeError as error:
            raise SetUpError(f"A PostgreSQL for the soak could not be started. {error}") from error
    return code


def _clean_environment() -> dict[str, str]:
    """This environment without what is set in it for another site or database: that must not be tested on."""
    settings = environment(DJANGO_SETTINGS_MODULE="tests.settings", PYTHONUNBUFFERED="1")
    for other in (
        "DATABASE_URL",
        "SCHEDULER_VAR",
        "SCHEDULER_PROGRAM_ROOTS",
        "SCHEDULER_PROGRAM_USERS",
        "SCHEDULER_ROOT",
        "SCHEDULER_STORE_GROUP",
        "DJANGO_DEBUG",
        "DJANGO_HTTPS",
        "SENDFILE_BACKEND",
    ):
        settings.pop(other, None)
    return settings


def _pytest(name: str, arguments: list[str], *, full: bool, **variables: str) -> tuple[int, str]:
    """Run pytest; its exit code, and its counts in one line."""
    say(f"\n*** On {name} ***")
    settings = _clean_environment() | variables | ({"SCHEDULER_TESTS_FULL": "1"} if full else {})
    colour = ["--color=yes"] if sys.stdout.isatty() and not servers.in_ci() else ["--color=no"]
    # Most tests wait for processes. A file stays together, for what its fixtures share; "-n0" undoes it.
    side_by_side = ["--numprocesses=2", "--dist=loadfile"]
    command: list[str | Path] = [PYTHON, "-m", "pytest", *colour, *side_by_side, *arguments]
    last = ""
    with subprocess.Popen(
        command, cwd=PROJECT, env=settings, stdout=subprocess.PIPE, text=True, errors="replace", bufsize=1
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                last = line if SUMMARY.search(line) else last
        except Terminated:
            process.send_signal(signal.SIGINT)
            raise
    return process.returncode, _counts(last, process.returncode)


def _counts(last: str, code: int) -> str:
    found = {what.rstrip("s") if what == "errors" else what: int(count) for count, what in SUMMARY.findall(last)}
    if code == NO_TESTS or not found:
        return f"no test was run (pytest ended with exit code {code})"
    failed = found.get("failed", 0) + found.get("error", 0)
    skipped = f", {found['skipped']} skipped" if "skipped" in found else ""
    return f"{found.get('passed', 0)} passed, {failed} failed{skipped}"
