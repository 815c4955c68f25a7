"""How a claimed run reaches a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import uuid

    from scheduler.models import Run


class LaunchError(Exception):
    """A run cannot be launched; the text is one sentence for people."""


class Executor(Protocol):
    """What the poller asks of an executor."""

    def start(self, run: Run) -> None:
        """Launch the supervisor of a claimed run. May be repeated; a second start of the program is impossible.

        Raises LaunchError when the run cannot be launched at all.
        """

    def collect(self, run: Run) -> None:
        """Launch a supervisor that collects what a dead one left."""

    def is_launching(self, run_uuid: uuid.UUID) -> bool:
        """Whether a launch of this run is under way."""

    def take_failures(self) -> dict[uuid.UUID, str]:
        """The launches that ended without a supervisor since the last call: run -> what went wrong."""
