"""``tests/run --soak N``: a soak of N runs in a folder and a database of its own; see tests/faults/soaking.py.

Ends with exit code 1 unless nothing was lost, nothing was started twice, no status was wrong and no process was left.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from pathlib import Path

import django
from django.core.management import call_command


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/run --soak")
    parser.add_argument("runs", type=int)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scheduler-soak-") as name:
        folder = Path(name)
        (folder / "programs").mkdir()
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "SCHEDULER_ROOT": f"{folder}/scheduler",
            "SCHEDULER_TESTS_PROGRAMS": f"{folder}/programs",
            "FOLDER": str(folder),
        }
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/soak.sqlite3")
        django.setup()
        call_command("migrate", verbosity=0)
        return _soak(folder, options.runs, options.seed)


def _soak(folder: Path, runs: int, seed: int) -> int:
    from django.contrib.auth import get_user_model

    from scheduler import outputs
    from tests.faults.soaking import Soak

    outputs.make_root()
    owner = get_user_model().objects.create_user("olivia", is_staff=True)
    _say(f"soak: seed {seed}")
    result = Soak(folder, owner, runs=runs, seed=seed, say=_say).run()
    for remark in result.remarks:
        _say(remark)
    _say(str(result))
    return 0 if result.is_good else 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    raise SystemExit(main())
