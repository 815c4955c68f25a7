"""What a task program imports: ``from scheduler.task import run``.

Under the scheduler (``SCHEDULER_RUN`` is set) messages and progress are appended as JSON lines to the file
``SCHEDULER_REPORTS``, and output files belong into the folder ``SCHEDULER_OUTPUT``. By hand the same program reports to
the terminal and writes into the current folder. Nothing of the environment is remembered from the time of the import: a
program may run in a fork of the process that imported this.

Importing it sets Django up when the task has a settings module, or, by hand, when there is a ``manage.py`` in a folder
above the program.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import FrameType

Item = TypeVar("Item")

LINE_BYTES = 64 * 1024  # a longer report is not read
LABEL_CHARACTERS = 200
PROGRESS_PER_SECOND = 10
PLAIN_SECONDS = 5.0  # between progress lines by hand, where they cannot overwrite each other
END_SECONDS = 5.0  # a program that we leave has so long between TERM and KILL

# What a program started by run.call() gets of the environment: nothing of the site's secrets.
PASSED_ON = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "HOME", "USER", "LOGNAME", "TMPDIR", "PYTHONUNBUFFERED"})
PASSED_ON_PREFIXES = ("LC_", "SCHEDULER_")


def _under_scheduler() -> bool:
    return "SCHEDULER_RUN" in os.environ


class TaskRun:
    """The run to which this process belongs."""

    @property
    def id(self) -> int | None:
        """The run's number, or None by hand."""
        number = os.environ.get("SCHEDULER_RUN_ID", "")
        return int(number) if _under_scheduler() and number.isdigit() else None

    @property
    def arguments(self) -> list[str]:
        """The arguments of the run (``sys.argv`` without the program)."""
        return sys.argv[1:]

    def message(self, text: object) -> None:
        """Tell people in one sentence what is happening; the newest message stands beside the run."""
        _send({"message": str(text)})

    def progress(self, done: float, total: float | None = None, label: str = "") -> None:
        """Say how far the task is: ``done`` of ``total``. Cheap: call it as often as you like."""
        finite = _finite(done)
        if finite is None:
            return
        report: dict[str, object] = {"progress": finite}
        if (limit := _finite(total)) is not None:
            report["total"] = limit
        if label:
            report["label"] = str(label)[:LABEL_CHARACTERS]
        _progress.report(report, at_once=finite == limit)

    def track(self, iterable: Iterable[Item], label: str = "", total: float | None = None) -> Iterator[Item]:
        """Yield the items and report progress; ``total`` is needed only where ``len(iterable)`` does not work."""
        if total is None:
            with contextlib.suppress(TypeError, OverflowError):
                total = len(iterable)  # type: ignore[arg-type]
        self.progress(0, total, label)
        for done, item in enumerate(iterable, start=1):
            yield item
            self.progress(done, total, label)

    def log(self, text: object) -> None:
        """Write a line into the log, in one piece also beside other processes (``print`` works too)."""
        _terminal.line(str(text))

    def output_path(self, name: str | os.PathLike[str]) -> Path:
        """Where an output file of this name belongs; ``name`` may have sub-folders, which are made.

        Raises ValueError when the name does not stay in the output folder.
        """
        text = os.fspath(name)
        if "\0" in text or any(part in {"", ".", ".."} for part in text.split("/")):
            raise ValueError(f"An output file cannot be called {text!r}: use a relative name without '..'.")
        folder = os.environ["SCHEDULER_OUTPUT"] if _under_scheduler() else Path.cwd()
        path = Path(folder, text)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def open_output(self, name: str | os.PathLike[str], mode: str = "w", **kwargs: Any) -> IO[Any]:
        """Open an output file, as ``open()`` does, with UTF-8 for text. Raises ValueError as ``output_path`` does."""
        if "b" not in mode:
            kwargs.setdefault("encoding", "utf-8")
        return self.output_path(name).open(mode, **kwargs)

    def call(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        inherit_environment: bool = False,
    ) -> int:
        """Run another program, with its output in the log; returns its exit code (128 + n when signal n ended it).

        ``argv`` is a list: no shell reads it. The program gets ``env`` and the harmless part of our environment, or all
        of it (the site's secrets too) with ``inherit_environment=True``. It never outlives an exception here.
        Raises OSError when it cannot be started.
        """
        import subprocess

        if isinstance(argv, (str, bytes)) or not argv:
            raise TypeError("run.call() takes a list: the program and its arguments, such as ['ls', '-l'].")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()  # what we wrote comes before what it writes
        with _TermRaises() as term:
            program = subprocess.Popen(
                [os.fspath(part) for part in argv],
                stdin=subprocess.DEVNULL,
                env={**_environment(everything=inherit_environment), **(env or {})},
                cwd=cwd,
            )
            try:
                term.arm()
                code = program.wait()
            except BaseException:
                program.terminate()
                try:
                    program.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    program.kill()
                    program.wait()
                raise
        return code if code >= 0 else 128 - code


def _finite(number: float | None) -> float | None:
    """A number that JSON and the database can hold, or None."""
    try:
        if number is None or not math.isfinite(number):
            return None
    except OverflowError:
        return None
    return int(number) if isinstance(number, int) else float(number)


def _environment(*, everything: bool) -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if everything or name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }


class _TermRaises:
    """By hand nobody else would end the program that we wait for: TERM becomes an exception, as Ctrl-C is one.

    The scheduler sends TERM to the whole tree, so there it keeps its own meaning.
    """

    def __enter__(self) -> _TermRaises:
        self._received = self._armed = False
        self._installed = (
            not _under_scheduler()
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        )
        if self._installed:
            signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def arm(self) -> None:
        """From now on there is a program to end: before, an exception would lose it in the middle of its start."""
        self._armed = True
        if self._received:
            raise SystemExit(128 + signal.SIGTERM)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        first, self._received = not self._received, True
        if first and self._armed:
            raise SystemExit(128 + signal.SIGTERM)


# Reports


def _send(report: dict[str, object]) -> None:
    if _under_scheduler():
        _append(_encode(report))
    else:
        _terminal.show(report)


def _append(line: bytes) -> None:
    """One write a line, so that lines of several processes do not mix; a full disk must not end the task."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.environ.get("SCHEDULER_REPORTS", ""), os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(descriptor, line) < len(line):
                os.write(descriptor, b"\n")  # the rest of it did not fit: the next line is to stand alone
        finally:
            os.close(descriptor)


def _encode(report: dict[str, object]) -> bytes:
    """The line of a report; a message that is too long for one is cut."""
    line = _json_line(report)
    while len(line) > LINE_BYTES:
        text = str(report["message"])
        report = {"message": text[: len(text) * LINE_BYTES // len(line) - 8] + " …"}
        line = _json_line(report)
    return line


def _json_line(report: dict[str, object]) -> bytes:
    # File names may hold lone surrogates, which are not text; NUL is not text for PostgreSQL.
    cleaned = {
        key: value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
        if isinstance(value, str)
        else value
        for key, value in report.items()
    }
    return json.dumps(cleaned, ensure_ascii=False).encode() + b"\n"


class _Progress:
    """Writes at most ten progress lines a second, and the newest always: a moment later, or at exit.

    The moment later needs a thread: a task that says "2 of 9" and then works for an hour must not stand at 1 of 9.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew: a fork must not write what its parent holds back, and the lock may have been held by a thread."""
        self._lock = threading.RLock()  # re-entrant: a signal handler may report too
        self._held_back: dict[str, object] | None = None
        self._timer: threading.Timer | None = None
        self._written: deque[float] = deque(maxlen=PROGRESS_PER_SECOND)
        self._ends_with_us = False

    def report(self, report: dict[str, object], *, at_once: bool) -> None:
        with self._lock:
            if not self._ends_with_us:
                self._flush_at_exit()
            self._held_back = report
            wait = self._wait(at_once=at_once)
            if wait <= 0:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self.flush)
                self._timer.daemon = True
                # No thread to be had: then it is written by the next report, or at exit.
                with contextlib.suppress(RuntimeError):
                    self._timer.start()

    def flush(self) -> None:
        """Write what is held back."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._held_back is not None:
                report, self._held_back = self._held_back, None
                self._written.append(time.monotonic())
                _send(report)

    def _wait(self, *, at_once: bool) -> float:
        if not self._written:
            return 0
        every = 1 / PROGRESS_PER_SECOND if _under_scheduler() or _terminal.is_tty() else PLAIN_SECONDS
        until = 0 if at_once else self._written[-1] + every
        if len(self._written) == PROGRESS_PER_SECOND:
            until = max(until, self._written[0] + 1)
        return until - time.monotonic()

    def _flush_at_exit(self) -> None:
        self._ends_with_us = True
        atexit.register(self._end)
        if multiprocessing := sys.modules.get("multiprocessing.util"):
            # Its workers leave without atexit.
            multiprocessing.Finalize(None, self._end, exitpriority=0)

    def _end(self) -> None:
        self.flush()
        _terminal.close_bar()


class _Terminal:
    """What a person sees by hand, on stderr: lines, and on a real terminal one bar that is drawn over itself."""

    def __init__(self) -> None:
        self._bar = False

    def is_tty(self) -> bool:
        try:
            return sys.stderr.isatty()
        except (AttributeError, ValueError):
            return False

    def line(self, text: str) -> None:
        self._write(("\r\033[K" if self._bar else "") + text + "\n")
        self._bar = False

    def show(self, report: dict[str, object]) -> None:
        if "message" in report:
            self.line(str(report["message"]))
        elif self.is_tty():
            width = shutil.get_terminal_size().columns - 1
            self._bar = True
            self._write("\r\033[K" + _progress_line(report, bar=True)[:width])
        else:
            self._write(_progress_line(report, bar=False) + "\n")

    def close_bar(self) -> None:
        if self._bar:
            self._bar = False
            self._write("\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _progress_line(report: dict[str, Any], *, bar: bool) -> str:
    done, total = report["progress"], report.get("total")
    words = [
        " ".join(report.get("label", "").split()),
        _number(done) if total is None else f"{_number(done)}/{_number(total)}",
    ]
    if total:
        share = min(max(done / total, 0), 1)
        if bar:
            words.insert(1, f"[{'#' * int(share * 20):-<20}]")
        words.append(f"{share:.0%}")
    return " ".join(word for word in words if word)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"


# Django


def _set_up_django() -> None:
    """Make the site's models usable, unless they are already, or this is a task without Django."""
    registry = sys.modules.get("django.apps")
    if registry is not None and (registry.apps.ready or registry.apps.loading):
        return
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        configured = "django.conf" in sys.modules and sys.modules["django.conf"].settings.configured
        if configured or _under_scheduler() or not _find_settings():
            return
    import django

    django.setup()


def _find_settings() -> bool:
    """By hand: use the project of the first ``manage.py`` above the program."""
    program = Path(sys.argv[0] if sys.argv else "").absolute()
    if not program.is_file() or find_spec("django") is None:
        return False
    for folder in program.parents:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = (folder / "manage.py").read_text(encoding="utf-8")
            if match := re.search(r"""setdefault\(\s*["']DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""", text):
                if str(folder) not in sys.path:
                    sys.path.insert(1, str(folder))  # after the program's own folder
                os.environ["DJANGO_SETTINGS_MODULE"] = match[1]
                return True
    return False


run = TaskRun()
_progress = _Progress()
_terminal = _Terminal()
os.register_at_fork(after_in_child=_progress.forget)
_set_up_django()
