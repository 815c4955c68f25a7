"""The demo from the command line: sets everything up, then keeps a web server and a poller going until Ctrl-C.

Standard library only: it runs before anything is installed. ``demo/run`` starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conf.environment import PROJECT, SetUpError, environment, prepare, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

HOST = "127.0.0.1"
PORT = 8000
PATIENCE_SECONDS = 15.0  # for a process that was asked to end, before it is killed
START_SECONDS = 60.0  # for the web server's first answer, on a slow machine
PR_SET_PDEATHSIG = 1

# What a person's shell may hold for another Django site; the demo is the same everywhere.
SITE_VARIABLES = (
    "DATABASE_URL",
    "DJANGO_ALLOWED_HOSTS",
    "DJANGO_DEBUG",
    "DJANGO_HTTPS",
    "DJANGO_SECRET_KEY",
    "DJANGO_SECRET_KEY_FILE",
    "SCHEDULER_PROGRAM_ROOTS",
    "SCHEDULER_PROGRAM_USERS",
    "SCHEDULER_ROOT",
    "SCHEDULER_STORE_GROUP",
    "SENDFILE_BACKEND",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code: 0 ended by Ctrl-C or a green check, 1 something is wrong, 2 wrong options."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return _check() if options.check else _run(options.port)
    except SetUpError as error:
        say(f"demo/run: {error}")
        return 1
    except OSError as error:
        say(f"demo/run: {error.filename or 'the demo'}: {error.strerror or error}.")
        return 1
    except KeyboardInterrupt:
        say("")
        return 0 if not options.check else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo/run",
        description="Set up the demo (once) and run it on this machine until Ctrl-C. Its data is kept in var/.",
        allow_abbrev=False,
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"listen on port N (default: {PORT})")
    only.add_argument("--check", action="store_true", help="run every sample task to its end, print a table, and leave")
    return parser.parse_args(arguments)


def _port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 65535:
        raise argparse.ArgumentTypeError(f"{value!r} is not a port; give a number from 1 to 65535")
    return int(value)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# The two ways to run it


def _run(port: int) -> int:
    var = Path(os.environ.get("SCHEDULER_VAR") or PROJECT / "var").absolute()
    with _only_demo_on(var, port):
        # Before minutes are spent on an installation.
        _refuse_taken_port(port)
        prepare("requirements.txt")
        manage = Manage(var)
        _set_up(manage)
        server = manage.start("runserver", "--noreload", "--insecure", f"{HOST}:{port}", quiet=True)
        poller = manage.start("poller")
        named = {"web server": server, "poller": poller}
        try:
            if not _wait_until_listening(port, named):
                return _say_what_ended(named)
            _print_addresses(port, var)
            while all(process.poll() is None for process in named.values()):
                time.sleep(0.2)
            return _say_what_ended(named)
        finally:
            _end(*named.values())


def _check() -> int:
    """Everything in a folder of its own, so that the demo's data is not touched."""
    prepare("requirements.txt")
    scratch = Path(tempfile.mkdtemp(prefix="scheduler-check-"))
    keep = True
    try:
        manage = Manage(scratch)
        _set_up(manage)
        poller = manage.start("poller")
        try:
            keep = manage.call("check_demo", "--poller", str(poller.pid)) != 0
        finally:
            _end(poller)
    finally:
        if keep:
            say(f"What the check left behind is kept in {scratch}.")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    return int(keep)


def _set_up(manage: Manage) -> None:
    _make_programs_safe()
    manage.demand("migrate", "--verbosity", "0")
    manage.demand("setup_demo")


# Its parts


class Manage:
    """``manage.py`` in the project's environment, with the demo's settings and a data folder."""

    def __init__(self, var: Path) -> None:
        _make_folder(var)
        # Runs, logs and the database are for this user and its group only.
        os.umask(0o027)
        self.environment = environment(
            DJANGO_SETTINGS_MODULE="conf.settings",
            DJANGO_RUNSERVER_HIDE_WARNING="true",
            SCHEDULER_VAR=str(var),
            PYTHONUNBUFFERED="1",
        )
        for name in SITE_VARIABLES:
            self.environment.pop(name, None)
        self.python = PROJECT / ".venv" / "bin" / "python"

    def call(self, *arguments: str) -> int:
        return subprocess.run(self._argv(arguments), env=self.environment, check=False).returncode

    def demand(self, *arguments: str) -> None:
        """Call a command without which the demo cannot go on."""
        if code := self.call(*arguments):
            raise SetUpError(f"“manage.py {arguments[0]}” failed (exit code {code}); what it says stands above.")

    def start(self, *arguments: str, quiet: bool = False) -> subprocess.Popen[bytes]:
        """Start a command that stays; Ctrl-C in the terminal does not reach it, its end is up to this process."""
        parent = os.getpid()

        def end_with_parent() -> None:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        return subprocess.Popen(
            self._argv(arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else None,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        return [str(self.python), str(PROJECT / "manage.py"), *arguments]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise SetUpError(
            f"The folder {folder} cannot be made: {error.strerror}. Make its parent writable, or set SCHEDULER_VAR to "
            "another folder."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SetUpError(f"The folder {folder} cannot be written by this user. Set SCHEDULER_VAR to another folder.")


def _make_programs_safe() -> None:
    """A checkout under umask 002 is writable for the group, and such programs are refused."""
    folder = PROJECT / "sample_tasks"
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode & 0o7777
        if mode & 0o022 and not path.is_symlink():
            # Another owner's file: starting its task says what is wrong.
            with contextlib.suppress(PermissionError):
                path.chmod(mode & ~0o022)


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SetUpError(
                    f"Port {port} is taken by another program. End that, or choose another: demo/run --port N."
                ) from error
            raise SetUpError(
                f"Port {port} cannot be used: {error.strerror}. Choose another: demo/run --port N."
            ) from error


@contextlib.contextmanager
def _only_demo_on(var: Path, port: int) -> Iterator[None]:
    """Hold the lock of the data folder. Raises SetUpError when a demo has it."""
    _make_folder(var)
    with (var / "demo.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise SetUpError(
                f"A demo runs already on {var}: {lock.read().strip() or 'it is being set up'}. End it, or use that one."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, http://{HOST}:{port}/")
        lock.flush()
        yield


def _wait_until_listening(port: int, processes: dict[str, subprocess.Popen[bytes]]) -> bool:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and all(process.poll() is None for process in processes.values()):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.1)
    return False


def _print_addresses(port: int, var: Path) -> None:
    address = f"http://{HOST}:{port}"
    say(f"\nThe demo runs at {address}/scheduler/ (the admin: {address}/admin/). Ctrl-C ends it; running tasks go on.")
    logins = var / "demo_logins"
    if logins.exists():
        say(f"The log-ins, also in {logins}:\n\n{logins.read_text()}")
    else:
        say(f"The log-ins are not known any more: {logins} is gone. Set a new one: manage.py changepassword admin")


def _say_what_ended(processes: dict[str, subprocess.Popen[bytes]]) -> int:
    for name, process in processes.items():
        if (code := process.poll()) is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            say(f"demo/run: the {name} ended by itself ({how}), so the demo ends too; what it said stands above.")
            return 1
    say(f"demo/run: the web server did not answer within {START_SECONDS:.0f} seconds.")
    return 1


def _end(*processes: subprocess.Popen[bytes]) -> None:
    """Ask each to end, by its own pid, and kill what does not; a second Ctrl-C does not get in between."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for process in processes:
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + PATIENCE_SECONDS
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
