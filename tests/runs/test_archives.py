"""The ZIP of all files of a run: asked for by a person, built by a process of its own."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from scheduler import outputs
from scheduler.models import Archive, OutputFile, Run
from scheduler.poller.archives import _job
from scheduler.supervisor import folder as protocol

if TYPE_CHECKING:
    from .conftest import World

FILES = """
    import os
    open("a.csv", "w").write("1,2\\n" * 50_000)
    open("b.bin", "wb").write(os.urandom(300_000))
    """


def test_the_files_of_a_run_are_packed_into_one_that_is_downloaded_like_the_others(world: World) -> None:
    run, poller = world.run(FILES), world.poller()
    archive = Archive.request(run, by=world.owner, now=timezone.now())
    assert Archive.request(run, by=world.owner, now=timezone.now()) == archive
    world.until(lambda: Archive.objects.get().file, "the archive is built", poller=poller)
    file = Archive.objects.get().file
    assert file is not None
    assert (file.kind, file.name) == (OutputFile.Kind.ARCHIVE, f"program {run.pk}.zip")
    path = outputs.file_path(file)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (file.size, 0o640)
    with zipfile.ZipFile(path) as packed:
        assert packed.testzip() is None
        contents = {name: packed.read(name) for name in packed.namelist()}
    assert contents == {each.name: outputs.file_path(each).read_bytes() for each in run.files.of_program()}
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted(
        [str(run.uuid), *(str(each.pk) for each in run.files.all())]
    )


def test_a_builder_that_was_killed_is_started_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run, poller = world.run(FILES), world.poller()
    archive = Archive.request(run, by=world.owner, now=timezone.now())
    # As a killed builder leaves it: a job, and a part of the archive under its preliminary name.
    job = _job(archive)
    outputs.run_folder(archive.pk)
    (world.folder / "scheduler" / "archives" / str(archive.pk)).mkdir(parents=True)
    job.write(protocol.PROGRESS, {"done_bytes": 5})
    world.until(lambda: Archive.objects.get().file, "the archive is built", poller=poller)


def test_a_builder_that_never_succeeds_is_given_up_with_a_sentence(world: World) -> None:
    run, poller = world.run(FILES), world.poller()
    outputs.file_path(run.files.of_program()[0]).unlink()
    Archive.request(run, by=world.owner, now=timezone.now())
    world.until(lambda: Archive.objects.get().problem, "the problem is told", poller=poller)
    assert "No such file" in Archive.objects.get().problem
    # Asked for again, it is tried again.
    assert Archive.request(run, by=world.owner, now=timezone.now()).problem == ""


def test_a_run_without_files_or_with_too_much_is_refused_in_one_sentence(world: World, settings: Any) -> None:
    run = world.run("print('no files')")
    with pytest.raises(ValidationError, match="has no files"):
        Archive.request(run, by=world.owner, now=timezone.now())
    run = world.run(FILES, name="other")
    settings.SCHEDULER = {**settings.SCHEDULER, "ARCHIVE_BYTES": 1000}
    with pytest.raises(ValidationError, match="larger"):
        Archive.request(Run.objects.get(pk=run.pk), by=world.owner, now=timezone.now())
