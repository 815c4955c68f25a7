"""Which machine this is: a uuid kept in ROOT/host.json; the name is only for display."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass

from scheduler.conf import scheduler_settings
from scheduler.supervisor.folder import read_json, write_json


@dataclass(frozen=True, slots=True)
class Host:
    id: uuid.UUID
    name: str


def this_host() -> Host:
    """This machine; its id is made at the first call. Raises OSError when ROOT cannot be written."""
    path = scheduler_settings().root / "host.json"
    kept = read_json(str(path))
    if kept is None:
        own = path.with_name(f"host.json.{os.getpid()}")
        write_json(str(own), {"id": str(uuid.uuid4())})
        try:
            os.link(own, path)  # two pollers that start at once agree on one
        except FileExistsError:
            pass
        finally:
            own.unlink()
        kept = read_json(str(path))
    if kept is None or "id" not in kept:
        raise OSError(f"{path} is damaged. Restore it, or delete it if no run of this machine is in progress.")
    return Host(uuid.UUID(kept["id"]), socket.gethostname())
