"""Run folders, the store's paths, display names, and the rows of collected files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from pathlib import Path

    from scheduler.models import OutputFile, Run


def log_path(run: Run) -> Path:
    """Where the run's log is in the store; it may not exist (not started yet, or purged)."""
    return scheduler_settings().store / run.log_path


def file_path(file: OutputFile) -> Path:
    """Where a collected file is in the store."""
    return scheduler_settings().store / str(file.run.uuid) / str(file.pk)
