"""Running a file as ``__main__`` in a process that was forked, as ``python program.py`` would run it."""

from __future__ import annotations

import atexit
import builtins
import gc
import io
import json
import os
import signal
import sys
import threading
import traceback
import types
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

FLUSH_FAILED = 120  # what Python itself ends with when stdout cannot be flushed


def rehearse() -> None:
    """Do what a start does, with nothing, while nobody waits for it.

    The memory that a forked process touches is copied by the kernel, page by page: this has it done beforehand.
    """
    json.loads(json.dumps({"argv": [__file__], "variables": {}}))
    hides_a_module(__file__)
    compile(b"import os\n", __file__, "exec", dont_inherit=True)
    SourceFileLoader("__main__", __file__)
    with suppress(OSError):
        open(os.devnull, "rb").close()


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
        module = sys.modules.get(name.removesuffix(".py"))
        file = getattr(module, "__file__", None) or ""
        # A part of the interpreter has no file and cannot be hidden; a package without __init__.py has none either.
        if not (file or hasattr(module, "__path__")) or file.startswith(folder + os.sep):
            continue
        if name.endswith(".py") or os.path.exists(os.path.join(folder, name, "__init__.py")):
            return True
    return False


def run_as_main(argv: list[str]) -> NoReturn:
    """Run ``argv[1]`` with what follows as its arguments, and end the process as Python does.

    Threads are waited for, ``atexit`` functions are called, the program's own objects are let go of, and what was
    written is flushed; tearing down what was loaded before is left to the kernel: it takes longer than most programs.
    """
    code = _compile(argv)
    sys.orig_argv[:] = argv
    sys.argv[:] = argv[1:]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(argv[1]))
    _make_fresh()
    _end(_ended_with(lambda: _run(code, argv[1])))


def _compile(argv: list[str]) -> types.CodeType:
    """The program. What cannot be read or compiled is handed to a new Python, which says so as only it can."""
    try:
        return compile(SourceFileLoader("__main__", argv[1]).get_data(argv[1]), argv[1], "exec", dont_inherit=True)
    except Exception:
        os.execv(argv[0], argv)  # noqa: S606


def _run(code: types.CodeType, path: str) -> None:
    main = types.ModuleType("__main__")
    vars(main).update(
        __file__=path,
        __builtins__=builtins,
        __loader__=SourceFileLoader("__main__", path),
        __spec__=None,
        __cached__=None,
        __annotations__={},
    )
    # At the end of them: what comes after it, the program has imported.
    del sys.modules["__main__"]
    sys.modules["__main__"] = main
    exec(code, vars(main))  # noqa: S102  (its purpose)


def _make_fresh() -> None:
    """What a new interpreter has of its own. (``random`` sees to itself at each fork.)"""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    if os.environ.get("PYTHONFAULTHANDLER"):
        import faulthandler

        faulthandler.enable()
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


# The end


def _ended_with(run: Callable[[], object]) -> int | signal.Signals:
    """Call this; the exit code, or the signal, that Python would end with. What nobody caught is shown."""
    try:
        run()
    except SystemExit as error:
        return _exit_code(error)
    except KeyboardInterrupt as error:
        return _show(error, signal.SIGINT)
    except BaseException as error:
        return _show(error, 1)
    return 0


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with suppress(Exception):
        sys.stdout.flush()
        print(error.code, file=sys.stderr)  # noqa: T201  (as Python does)
    return 1


def _show(error: BaseException, code: int) -> int:
    """Show an uncaught exception as Python would: without the frames of this module. The exit code that it leads to."""
    _hide_our_frames(error)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    with suppress(BaseException):
        sys.stdout.flush()
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except SystemExit as leaving:
        return _exit_code(leaving)
    except BaseException as another:
        _hide_our_frames(another)
        another.__context__ = None
        for title, shown in (("Error in sys.excepthook:", another), ("\nOriginal exception was:", error)):
            with suppress(Exception):
                print(title, file=sys.stderr)  # noqa: T201
            sys.__excepthook__(type(shown), shown, shown.__traceback__)
    return code


def _hide_our_frames(error: BaseException) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    error.__traceback__ = trace


def _end(code: int | signal.Signals) -> NoReturn:
    """In the order of Python's own end; whatever the program has done to this process, it ends here."""
    status = int(code)
    try:
        for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
            try:
                step()
            except BaseException as error:
                _show(error, 1)
        flushed = _flush_standard_streams()
        _let_go()
        if not (_flush_standard_streams() and flushed):
            status = FLUSH_FAILED
        elif isinstance(code, signal.Signals):
            signal.signal(code, signal.SIG_DFL)
            os.kill(os.getpid(), code)
    finally:
        os._exit(status)


def _let_go() -> None:
    """Give up the program's own modules, so that objects are finalized, and flush the files that were left open."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    for name in ("last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    _flush_files()  # before: of a file in a cycle the descriptor might be closed first
    for name in _modules_of_the_program():
        del sys.modules[name]
    gc.collect()
    _flush_files()


def _modules_of_the_program() -> list[str]:
    """The names of its own module and of those that it has imported.

    From the newest on: to look at all of them would copy the memory in which their names are.
    """
    names: list[str] = []
    if "__main__" in sys.modules:
        for name in reversed(sys.modules):
            names.append(name)
            if name == "__main__":
                break
    return names


def _flush_files() -> None:
    for thing in gc.get_objects():  # of the program only: what was loaded before is frozen
        if isinstance(thing, io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom):
            with suppress(Exception):
                if not thing.closed:
                    thing.flush()


def _flush_standard_streams() -> bool:
    well = True
    for stream in (getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException as error:
            well = False
            if stream is getattr(sys, "stdout", None):
                said = "".join(traceback.format_exception_only(error))
                with suppress(Exception):
                    print(f"Exception ignored in: {stream!r}\n{said}", end="", file=sys.stderr)  # noqa: T201
    return well
