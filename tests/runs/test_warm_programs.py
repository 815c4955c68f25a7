"""A program behaves as with ``python program.py``, whether a new Python starts it or the warm process is forked.

Python itself says what is right: most programs here are run by it as well, and the two are compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from scheduler.models import Task
from scheduler.states import Status
from tests.servers import with_default_signals

if TYPE_CHECKING:
    from scheduler.models import Run

    from .conftest import World


@pytest.fixture(params=["cold", "warm"])
def start_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_all(world: World, sources: dict[str, str]) -> dict[str, Run]:
    """Run so many programs under one poller; all of them are forked where starts are warm."""
    tasks = {
        name: world.task(source, name=name, environment=Task.Environment.DJANGO) for name, source in sources.items()
    }
    runs = {name: world.start(task) for name, task in tasks.items()}
    poller = world.poller()
    finished = {name: world.finish(run, poller=poller) for name, run in runs.items()}
    assert poller.executor.cold_reason == ""
    return finished


def run_one(world: World, source: str, *arguments: str, **fields: Any) -> tuple[Run, str]:
    run = world.run(source, *arguments, **{"environment": Task.Environment.DJANGO, **fields})
    return run, world.log(run)


def by_python(world: World, name: str, *arguments: str) -> tuple[int, str]:
    """The exit code (minus the signal) and the output of the same program, run by Python itself."""
    there = world.folder / "by-python"
    there.mkdir(exist_ok=True)
    ended = subprocess.run(
        [sys.executable, str(world.programs / f"{name}.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**ours(), "FOLDER": str(world.folder)},
        cwd=there,
        preexec_fn=with_default_signals,
    )
    return ended.returncode, ended.stdout.decode(errors="replace")


def ours() -> dict[str, str]:
    from scheduler.executors.local import environment_for

    return environment_for(Task.Environment.DJANGO)


def ended_with(run: Run) -> int | None:
    return -run.signal if run.signal else run.exit_code


# The end of a program, and what it says then

EXITS = {
    "exit-none": "import sys; sys.exit()",
    "exit-0": "import sys; sys.exit(0)",
    "exit-3": "import sys; sys.exit(3)",
    "exit-true": "import sys; sys.exit(True)",
    "exit-256": "import sys; sys.exit(256)",
    "exit-minus-1": "import sys; sys.exit(-1)",
    "exit-text": "import sys; print('out'); sys.exit('no such file')",
    "exit-tuple": "import sys; sys.exit((1, 'two'))",
    "exit-in-function": "def main():\n    raise SystemExit(4)\nmain()",
    "exit-without-site": "quit(5)",
    "os-exit": "import os; print('kept'); os._exit(6)",
    "abort": "import os; os.abort()",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "hung-up": "import os, signal; os.kill(os.getpid(), signal.SIGHUP)",
    "interrupted": "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
    "interrupt-is-caught": """
        import os, signal, time
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            print("caught")
        """,
    "broken-pipe": """
        import os
        reader, writer = os.pipe()
        os.close(reader)
        try:
            os.write(writer, b"x")
        except BrokenPipeError:
            print("SIGPIPE is ignored")
        """,
    "stdout-is-closed": "import sys; print('before'); sys.stdout.close()",
    "stdout-is-none": "import sys; sys.stdout = None; print('nowhere')",
    "stdout-has-no-flush": """
        import sys
        class Odd:
            def __repr__(self):
                return "<odd>"
        sys.stdout = Odd()
        """,
    "stderr-is-none": "import sys; sys.stderr = None; raise ValueError('nobody hears it')",
    "descriptor-is-closed": "import os; os.close(1)",
}

TRACEBACKS = {
    "uncaught": """
        def outer():
            inner()
        def inner():
            raise LookupError("no such luck")
        outer()
        """,
    "chained": """
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise RuntimeError("while counting") from error
        """,
    "while-handling": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}['x']",
    "group": "raise ExceptionGroup('several', [ValueError('one'), TypeError('two')])",
    "keyboard-interrupt": "raise KeyboardInterrupt",
    "generator-exit": "raise GeneratorExit",
    "syntax-error": "print('never')\nif True print('x')\n",
    "indentation": "def f():\nprint('x')\n",
    "return-outside": "print('never')\nreturn 3\n",
    "import-error": "import there_is_no_such_module",
    "in-a-thread": """
        import threading
        def work():
            raise ValueError("in a thread")
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()
        """,
    "in-atexit": """
        import atexit
        atexit.register(print, "still called")
        class End:
            def __call__(self):
                raise ValueError("at the end")
            def __repr__(self):
                return "<end>"
        atexit.register(End())
        """,
    "hook": "import sys\nsys.excepthook = lambda kind, error, trace: print(kind, error, trace.tb_lineno)\n1 / 0",
    "hook-fails": """
        import sys
        def hook(*_):
            raise TypeError("the hook itself")
        sys.excepthook = hook
        1 / 0
        """,
    "warning": "import warnings; warnings.warn('old', DeprecationWarning)",
    "hook-exits": """
        import sys
        def hook(*_):
            print("the hook")
            sys.exit(9)
        sys.excepthook = hook
        1 / 0
        """,
    "last-value": "import atexit, sys\natexit.register(lambda: print(repr(sys.last_value)))\n1 / 0",
    "error-of-str": """
        class Odd(Exception):
            def __str__(self):
                raise ValueError
        raise Odd
        """,
}

ENDS = {
    "atexit-order": """
        import atexit, threading
        atexit.register(print, "first registered, called last")
        atexit.register(print, "last registered, called first")
        gate = threading.Event()
        def work():
            gate.wait()
            print("the thread is waited for")
        threading.Thread(target=work).start()
        threading.Timer(0, gate.set).start()
        """,
    "daemon-thread": """
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        print("not waited for")
        """,
    "atexit-after-exit": "import atexit, sys; atexit.register(print, 'called'); sys.exit(7)",
    "atexit-exits": """
        import atexit, sys
        class Leave:
            def __call__(self):
                sys.exit(3)
            def __repr__(self):
                return "<leave>"
        atexit.register(print, "both")
        atexit.register(Leave())
        """,
    "os-exit-skips-atexit": "import atexit, os; atexit.register(print, 'never'); os._exit(0)",
    "unflushed": "import sys\nsys.stdout.reconfigure(write_through=False)\nsys.stdout.write('no newline')",
    "unflushed-and-forked": """
        import os, sys
        sys.stdout = open(1, "w", closefd=False)
        sys.stdout.write("once ")
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            sys.stdout.write("child ")
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), end="")
        """,
    "file-left-open": """
        import os, subprocess, sys
        if len(sys.argv) == 1 and os.fork() == 0:
            left = open("left", "w")
            left.write("kept")
            held = [open("held", "wb")]
            held.append(held)
            held[0].write(b"kept too")
        else:
            os.wait()
            print(open("left").read(), open("held").read())
        """,
    "finalizer": """
        import atexit, weakref
        class Thing:
            def __del__(self):
                print("deleted")
        thing = Thing()
        cycle = Thing()
        cycle.itself = cycle
        weakref.finalize(thing, print, "finalized")
        atexit.register(print, "atexit")
        """,
    "temporary-files": """
        import os, sys, tempfile
        if os.fork() == 0:
            file, folder = tempfile.NamedTemporaryFile(dir="."), tempfile.TemporaryDirectory(dir=".")
            with open("names", "w") as names:
                names.write(f"{file.name}\\n{folder.name}")
        else:
            os.wait()
            print([os.path.exists(name) for name in open("names").read().split()])
        """,
    "archive-left-open": """
        import os, zipfile
        if os.fork() == 0:
            archive = zipfile.ZipFile("x.zip", "w")
            archive.writestr("name", "content")
        else:
            os.wait()
            print(zipfile.ZipFile("x.zip").read("name"))
        """,
    "logging-is-flushed": """
        import logging, logging.handlers, sys
        target = logging.StreamHandler(sys.stdout)
        logging.getLogger().addHandler(logging.handlers.MemoryHandler(100, target=target))
        logging.getLogger().warning("kept until the end")
        """,
}

PROCESSES = {
    **{
        f"multiprocessing-{method}": f"""
            import multiprocessing, os
            def work(number, queue):
                queue.put((number * 2, __name__, os.getcwd()))
            if __name__ == "__main__":
                context = multiprocessing.get_context("{method}")
                queue = context.Queue()
                children = [context.Process(target=work, args=(number, queue)) for number in range(2)]
                [child.start() for child in children]
                found = sorted(queue.get() for _ in children)
                [child.join() for child in children]
                print([(number, name, cwd == os.getcwd()) for number, name, cwd in found])
                print([child.exitcode for child in children], multiprocessing.current_process().name)
            """
        for method in ("fork", "spawn", "forkserver")
    },
    "pool": """
        import concurrent.futures, math
        if __name__ == "__main__":
            with concurrent.futures.ProcessPoolExecutor(2) as pool:
                print(list(pool.map(math.sqrt, [4, 9])))
        """,
    "thread-pool": """
        import concurrent.futures
        pool = concurrent.futures.ThreadPoolExecutor(2)
        pool.submit(print, "done, although nobody waits")
        """,
    "manager": """
        import multiprocessing
        if __name__ == "__main__":
            with multiprocessing.Manager() as manager:
                print(manager.list([1, 2]))
        """,
    "child-that-fails": """
        import multiprocessing, sys
        child = multiprocessing.get_context("fork").Process(target=sys.exit, args=(5,))
        child.start()
        child.join()
        print(child.exitcode)
        """,
    "subprocess": """
        import subprocess, sys
        print(subprocess.run([sys.executable, "-c", "import sys; print(sys.stdin.read()); sys.exit(3)"]).returncode)
        print(subprocess.check_output(["ls", "/proc/self/fd"]).decode().split())
        """,
    "asyncio": """
        import asyncio, signal
        async def main():
            loop = asyncio.get_running_loop()
            done = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, done.set)
            signal.raise_signal(signal.SIGUSR1)
            await done.wait()
            process = await asyncio.create_subprocess_exec("echo", "from a child")
            print(await process.wait())
        asyncio.run(main())
        """,
    "pickle-of-main": """
        import pickle
        class Thing:
            pass
        print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
        """,
    "dataclass-and-type-hints": """
        from __future__ import annotations
        import dataclasses, typing
        @dataclasses.dataclass(slots=True)
        class Point:
            x: int
        print(Point(3), typing.get_type_hints(Point))
        """,
    "annotations": "x: int = 3\nprint(__annotations__)",
    "no-future-of-ours": "def f(x: 1 + 1): pass\nprint(f.__annotations__)",
}


@pytest.mark.parametrize(
    "sources", [EXITS, TRACEBACKS, ENDS, PROCESSES], ids=["exits", "tracebacks", "ends", "processes"]
)
def test_it_ends_as_with_python_and_says_the_same(world: World, sources: dict[str, str]) -> None:
    seen = {name: (ended_with(run), world.log(run)) for name, run in run_all(world, sources).items()}
    assert seen == {name: by_python(world, name) for name in sources}


@pytest.mark.parametrize("content", [b"x = '\xff'\n", b"# coding: klingon\nprint('x')\n", b"print('x')\n\0\n"])
def test_a_file_that_is_no_python_is_named_as_python_does(world: World, content: bytes) -> None:
    task = world.task("", environment=Task.Environment.DJANGO)
    (world.programs / "program.py").write_bytes(content)
    run = world.finish(world.start(task), poller=world.poller())
    # (Early releases of Python 3.11 read a program only as far as a null byte.)
    assert (ended_with(run), world.log(run)) == by_python(world, "program")


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"# coding: latin-1\n"])
def test_the_encoding_that_a_file_names_is_its_encoding(world: World, start: bytes) -> None:
    task = world.task("", environment=Task.Environment.DJANGO)
    text = "print(ascii('\u00fc'))".encode("utf-8" if start.startswith(b"\xef") else "latin-1")
    (world.programs / "program.py").write_bytes(start + text)
    run = world.finish(world.start(task), poller=world.poller())
    assert world.log(run) == "'\\xfc'\n"


# What a program finds

FACTS = '''
    """What this program is for."""
    import __main__, gc, json, locale, logging, multiprocessing, os, signal, sys, threading, traceback, warnings
    print(json.dumps({
        "names": sorted(globals()),
        "main": [__name__, __file__, __doc__, __package__, repr(__spec__), __cached__, type(__loader__).__name__,
                 __loader__.name, __loader__.path, type(__builtins__).__name__],
        "is main": [sys.modules["__main__"] is __main__, vars(__main__) is globals()],
        "argv": [sys.argv, sys.orig_argv[-len(sys.argv):]],
        "path": sys.path,
        "interpreter": [sys.executable, sys.prefix, sys.base_prefix, list(sys.flags[:-4]), sys.getrecursionlimit()],
        "streams": [[stream.name, stream.mode, stream.encoding, stream.errors, stream.line_buffering,
                     stream.write_through] for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "stdin": sys.stdin.read(),
        "locale": [locale.setlocale(locale.LC_ALL, None), sys.getfilesystemencoding()],
        "signals": {str(number): str(signal.getsignal(number)) for number in sorted(signal.valid_signals())},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "wakeup": signal.set_wakeup_fd(-1),
        "threads": [threading.current_thread().name, threading.current_thread() is threading.main_thread(),
                    threading.active_count(), threading.main_thread().native_id == os.getpid()],
        "process": [multiprocessing.current_process().name, multiprocessing.parent_process(),
                    multiprocessing.active_children(), multiprocessing.get_start_method(allow_none=True)],
        "gc": [gc.isenabled(), gc.get_threshold()],
        "hooks": [sys.excepthook is sys.__excepthook__, sys.gettrace(), sys.getprofile()],
        "outermost": [len(traceback.extract_stack()) >= 1, traceback.extract_stack()[-1].name],
    }))
    '''


def test_it_finds_what_a_program_of_python_finds(world: World) -> None:
    run, log = run_one(world, FACTS, "--flag", "two words")
    status, said = by_python(world, "program", "--flag", "two words")
    assert (run.exit_code, status) == (0, 0), log + said
    assert json.loads(log) == json.loads(said)
    assert json.loads(log)["argv"][0] == [str(world.programs / "program.py"), "--flag", "two words"]


def test_it_imports_what_lies_beside_it(world: World) -> None:
    (world.programs / "beside.py").write_text("from package import inner\nvalue = inner.value\n")
    (world.programs / "package").mkdir()
    (world.programs / "package" / "__init__.py").touch()
    (world.programs / "package" / "inner.py").write_text("value = 'from beside'\n")
    (world.programs / "data.txt").write_text("data")
    _run, log = run_one(
        world,
        """
        import os, beside
        print(beside.value, beside.__file__ == os.path.join(os.path.dirname(__file__), "beside.py"))
        print(open(os.path.join(os.path.dirname(__file__), "data.txt")).read())
        """,
    )
    assert log == "from beside True\ndata\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [("uuid.py", "mine = True"), ("demo/__init__.py", "mine = True"), ("this.py", "mine = True")],
    ids=["a module of Python", "an app of the site", "a module that is not loaded"],
)
def test_a_module_beside_it_hides_one_that_is_loaded(world: World, name: str, content: str) -> None:
    place = world.programs / "hiding" / name
    place.parent.mkdir(parents=True)
    place.write_text(content)
    module = name.partition("/")[0].removesuffix(".py")
    _run, log = run_one(world, f"import {module}, sys; print({module}.mine, sys.argv, __name__)", "x", name="hiding/it")
    assert log == f"True {[str(world.programs / 'hiding' / 'it.py'), 'x']} __main__\n"


LIST_DESCRIPTORS = """
    import os
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # that of the listing
    print(found)
    """


@pytest.mark.parametrize("hides", [False, True], ids=["", "hiding a module"])
def test_it_has_the_three_descriptors_and_nothing_of_the_schedulers(world: World, hides: bool) -> None:
    (world.programs / "place").mkdir()
    if hides:
        (world.programs / "place" / "uuid.py").touch()
    run, log = run_one(world, LIST_DESCRIPTORS, name="place/it")
    found = eval(log)
    assert found.pop(0) == "/dev/null"
    assert found.pop(1) == found.pop(2)
    # A connection to the database that was made beforehand is on its side, and one that leads to its own folder.
    [*own] = [name for name in found.values() if not (name.startswith("socket:") and world.start_kind == "warm")]
    assert own in ([], [f"{world.folder}/scheduler/runs/{run.uuid}/output"])
    assert sum(name.startswith("socket:") for name in found.values()) <= (not hides)


def test_its_folder_its_mask_and_its_limits_are_those_of_a_run(world: World) -> None:
    _run, log = run_one(
        world,
        """
        import os, resource
        print(os.getcwd() == os.environ["SCHEDULER_OUTPUT"] == os.environ["PWD"], oct(os.umask(0)))
        print(resource.getrlimit(resource.RLIMIT_CORE)[0], open("/proc/self/oom_score_adj").read().strip())
        print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), os.listdir())
        """,
    )
    assert log == "True 0o27\n0 500\nTrue True []\n"


def test_the_models_are_there_and_a_transaction_is_its_own(world: World) -> None:
    run, log = run_one(
        world,
        """
        import django
        django.setup()
        from django.contrib.auth.models import User
        from django.db import connection, connections, transaction
        try:
            with transaction.atomic():
                User.objects.create(username="undone")
                raise LookupError
        except LookupError:
            pass
        with transaction.atomic():
            User.objects.create(username="done")
        print(sorted(User.objects.values_list("username", flat=True)), connection.in_atomic_block)
        connections.close_all()
        print(User.objects.count())
        """,
    )
    assert log == "['done', 'olivia'] False\n2\n"
    assert run.status == Status.COMPLETED


def test_a_thread_and_a_forked_process_of_it_use_the_database(world: World) -> None:
    _run, log = run_one(
        world,
        """
        import os, threading
        import django
        django.setup()
        from django.contrib.auth.models import User
        from django.db import connections
        def count():
            print("thread", User.objects.count())
            connections.close_all()
        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
        connections.close_all()
        if os.fork() == 0:
            print("child", User.objects.count())
        else:
            os.wait()
            print("parent", User.objects.count())
        """,
    )
    assert log == "thread 1\nchild 1\nparent 1\n"


def test_the_programs_are_forked_where_starts_are_warm(world: World) -> None:
    _run, log = run_one(world, "print(open('/proc/self/cmdline').read().split('\\0')[1:3])")
    assert ("scheduler.executors.warm" in log) == (world.start_kind == "warm")
    assert ("program.py" in log) == (world.start_kind == "cold")
