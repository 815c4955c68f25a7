"""How long the page of a run takes whose log has 1 GB: ``.venv/bin/python -m benchmarks.log_page``.

Makes a database and a log of its own in a temporary folder, and asks for the page as a browser does, without a network.
"""

from __future__ import annotations

import html
import os
import re
import statistics
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GIGABYTE = 1024**3
TIMES = 20
ADDRESSES = {
    "the end": "",
    "at 50 %": "?at=50%25",
    "the next lines (JSON)": "log/?offset=536870912",
    "the first error (at 60 %), step by step": "?error=0",
    "a text that is not there, step by step": "?find=there+is+no+such+text",
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="scheduler-log-") as folder:
        os.environ |= {"SCHEDULER_VAR": folder, "DJANGO_SETTINGS_MODULE": "conf.settings", "DJANGO_DEBUG": "0"}
        import django

        django.setup()
        _measure()


def _measure() -> None:
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client
    from django.utils import timezone

    from scheduler import outputs
    from scheduler.models import Run, Task

    call_command("migrate", verbosity=0)
    user = User.objects.create_superuser("admin")
    now = timezone.now()
    task = Task.objects.create(name="Task", program_root="programs", program_path="x.py", owner=user)
    run = Run.objects.create(
        task=task, status="completed", reason="exit_code", queued_at=now, due_at=now, started_at=now, finished_at=now
    )
    _write(outputs.log_path(run))
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    for name, address in ADDRESSES.items():
        seconds: list[float] = []
        following: str | None = run.get_absolute_url() + address
        while following and len(seconds) < TIMES:
            begin = time.perf_counter()
            answer = client.get(following)
            seconds.append(time.perf_counter() - begin)
            assert answer.status_code == 200
            if "step" in name:
                on = re.search(r'href="([^"#]*)#log" id="log-go-on"', answer.content.decode())
                following = html.unescape(on[1]) if on else None
        middle, most = statistics.median(seconds) * 1000, max(seconds) * 1000
        print(f"{name}: {middle:.0f} ms, at most {most:.0f} ms ({len(seconds)} requests)")


def _write(path: Path) -> None:
    """1 GB of ordinary lines, with one error."""
    lines = "".join(f"2026-11-24 10:00:{number % 60:02} INFO record {number} copied\n" for number in range(20_000))
    block = lines.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while (size := file.tell()) < GIGABYTE:
            file.write(block)
            if size < 0.6 * GIGABYTE <= file.tell():
                file.write(b"ValueError: here\n")


if __name__ == "__main__":
    main()
