"""A file in the store for a minute, by which ``manage.py doctor`` sees whether downloads arrive.

Whoever holds its signed name may fetch it: the doctor, who has just made it out of random bytes, and nobody else.
"""

from __future__ import annotations

import os
import secrets
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core import signing

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SALT = "scheduler.probe"
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Probe:
    token: str
    path: Path
    content: bytes


@contextmanager
def probe() -> Iterator[Probe]:
    """Put a probe into the store, and take it out again. Raises OSError when this user cannot write there."""
    name = str(uuid.uuid4())
    path, content = _path(name), secrets.token_bytes(1000)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o640)  # whatever the umask is; its group is the folder's
            file.write(content)
        yield Probe(signing.dumps(name, salt=SALT), path, content)
    finally:
        path.unlink()


def path_of(token: str) -> Path | None:
    """Where the probe is that a signed name names; None for a name that nobody signed, or that is too old."""
    try:
        return _path(str(uuid.UUID(signing.loads(token, salt=SALT, max_age=SECONDS))))
    except (signing.BadSignature, ValueError, TypeError, AttributeError):
        return None


def _path(name: str) -> Path:
    return scheduler_settings().store / name
