"""Having the ZIPs built that people ask for: one at a time, each in a process of its own."""

from __future__ import annotations

import logging
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import transaction

from scheduler import outputs
from scheduler.conf import scheduler_settings
from scheduler.executors.launches import SUPERVISOR_COMMAND
from scheduler.models import Archive, OutputFile
from scheduler.poller.each import each
from scheduler.supervisor.folder import DONE, PROGRESS, SPEC, RunFolder
from scheduler.wakeup import wake_folder

if TYPE_CHECKING:
    from datetime import datetime

logger = logging.getLogger(__name__)

ATTEMPTS = 3
BUILDER_COMMAND = [*SUPERVISOR_COMMAND, "--archive"]


@dataclass(slots=True)
class Archiver:
    """Starts builders and takes in what they report; a builder outlives its poller, and the next one finds it."""

    host: uuid.UUID
    _builders: dict[uuid.UUID, subprocess.Popen[bytes]] = field(default_factory=dict)
    _attempts: dict[uuid.UUID, int] = field(default_factory=dict)

    def rest(self) -> int:
        """A round without anything to build; 0."""
        self._builders = {key: builder for key, builder in self._builders.items() if builder.poll() is None}
        return 0

    def look(self, now: datetime) -> int:
        """One round; how many archives are under way."""
        self.rest()
        waiting = list(
            Archive.objects.unfinished()
            .filter(run__host=self.host)
            .select_related("run__task")
            .order_by("requested_at")
        )
        for archive in waiting[:1]:
            each(archive, lambda archive: self._look_at(archive, now))
        return len(waiting)

    def _look_at(self, archive: Archive, now: datetime) -> None:
        job = _job(archive)
        done = job.read(DONE)
        if done is not None:
            self._ingest(archive, done, now)
        elif job.lock_holder() is None and archive.pk not in self._builders:
            self._start(archive, job)
        elif progress := job.read(PROGRESS):
            Archive.objects.filter(pk=archive.pk).update(done_bytes=progress.get("done_bytes", 0))

    def _start(self, archive: Archive, job: RunFolder) -> None:
        attempt = self._attempts[archive.pk] = self._attempts.get(archive.pk, 0) + 1
        try:
            if attempt > ATTEMPTS:
                raise OSError(f"the builder ended {ATTEMPTS} times without a result")
            Path(job.path).mkdir(mode=0o700, parents=True, exist_ok=True)
            job.write(SPEC, _spec(archive))
            self._builders[archive.pk] = subprocess.Popen(
                [*BUILDER_COMMAND, job.path],
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            logger.warning("archive of run %s: %s", archive.run_id, error)
            Archive.objects.filter(pk=archive.pk).update(problem=str(error.strerror or error))

    def _ingest(self, archive: Archive, done: dict[str, Any], now: datetime) -> None:
        with transaction.atomic():
            if "problem" in done:
                Archive.objects.filter(pk=archive.pk).update(problem=str(done["problem"]))
            else:
                file, _created = OutputFile.objects.get_or_create(
                    pk=archive.pk,
                    defaults={
                        "run": archive.run,
                        "kind": OutputFile.Kind.ARCHIVE,
                        "name": outputs.display_name(f"{archive.run.task.name} {archive.run_id}.zip"),
                        "size": done["size"],
                        "sha256": done["sha256"],
                        "created_at": now,
                    },
                )
                Archive.objects.filter(pk=archive.pk).update(file=file, done_bytes=archive.total_bytes)
        self._attempts.pop(archive.pk, None)
        shutil.rmtree(_job(archive).path, ignore_errors=True)


def _job(archive: Archive) -> RunFolder:
    return RunFolder(str(scheduler_settings().root / "archives" / str(archive.pk)))


def _spec(archive: Archive) -> dict[str, object]:
    members = archive.run.files.of_program().values("id", "name")
    return {
        "store": str(outputs.store_folder(archive.run.uuid)),
        "store_gid": outputs.store_gid(),
        "part": str(uuid.uuid5(archive.pk, "part")),
        "target": str(archive.pk),
        "members": [{"id": str(member["id"]), "name": member["name"]} for member in members],
        "wake": str(wake_folder()),
    }
