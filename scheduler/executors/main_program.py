"""Running a file as ``__main__`` in a process that was forked, as ``python program.py`` would run it."""

from __future__ import annotations

import atexit
import builtins
import os
import signal
import sys
import threading
import types
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from typing import NoReturn

FLUSH_FAILED = 120  # what Python itself ends with when stdout cannot be flushed


def hides_a_module(path: str) -> bool:
    """Whether the program's folder has a module whose name is loaded already from somewhere else.

    ``python program.py`` would import the one beside the program.
    """
    folder = os.path.dirname(path)
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        file = getattr(sys.modules.get(name.removesuffix(".py")), "__file__", None)
        if file is None or file.startswith(folder + os.sep):
            continue
        if name.endswith(".py") or os.path.exists(os.path.join(folder, name, "__init__.py")):
            return True
    return False


def run_as_main(argv: list[str]) -> NoReturn:
    """Run ``argv[1]`` with what follows as its arguments, and end the process as Python does.

    Threads are waited for, ``atexit`` functions are called, output is flushed; what Python would tear down after that
    is left to the kernel, since it takes longer than most programs.
    """
    sys.orig_argv[:] = argv
    sys.argv[:] = argv[1:]
    sys.path.insert(0, os.path.dirname(argv[1]))
    _make_fresh()
    code: int | signal.Signals
    try:
        _run(argv[1])
        code = 0
    except SystemExit as error:
        code = _exit_code(error)
    except KeyboardInterrupt as error:
        _show(error)
        code = signal.SIGINT
    except BaseException as error:
        _show(error)
        code = 1
    _end(code)


def _run(path: str) -> None:
    main = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    vars(main).update(
        __file__=path, __builtins__=builtins, __loader__=loader, __spec__=None, __cached__=None, __annotations__={}
    )
    sys.modules["__main__"] = main
    exec(compile(loader.get_data(path), path, "exec", dont_inherit=True), vars(main))  # noqa: S102  (its purpose)


def _make_fresh() -> None:
    """What a new interpreter has of its own. (``random`` sees to itself at each fork.)"""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    if os.environ.get("PYTHONFAULTHANDLER"):
        import faulthandler

        faulthandler.enable()
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with suppress(Exception):
        sys.stdout.flush()
        print(error.code, file=sys.stderr)  # noqa: T201  (as Python does)
    return 1


def _show(error: BaseException) -> None:
    """Show an uncaught exception as Python would: without the frames of this module."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    with suppress(BaseException):
        sys.stdout.flush()
    try:
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    except BaseException as another:
        sys.__excepthook__(type(another), another, another.__traceback__)


def _end(code: int | signal.Signals) -> NoReturn:
    status = int(code)
    try:
        # In the order of Python's own end: threads, atexit, flush.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException as error:
        _show(error)
    try:
        sys.stdout.flush()
    except ValueError:
        pass  # the program has closed it
    except OSError:
        status = FLUSH_FAILED
    with suppress(Exception):
        sys.stderr.flush()
    if isinstance(code, signal.Signals):
        signal.signal(code, signal.SIG_DFL)
        os.kill(os.getpid(), code)
    os._exit(status)
