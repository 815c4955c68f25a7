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

    @property
    def cold_reason(self) -> str:
        """Why runs start slowly that could start fast; empty when nothing is wrong."""

    @property
    def limits_problem(self) -> str:
        """Why memory and processes of a whole run cannot be limited here; empty when they can be."""

    def prepare(self) -> None:
        """Keep ready what makes starts fast; called in each round."""

    def renew(self) -> None:
        """Forget what has been loaded of the site's code."""

    def close(self) -> None:
        """Let go of what was kept ready. Runs that were started go on."""

    def start(self, run: Run) -> None:
        """Launch the supervisor of a claimed run. May be repeated; a second start of the program is impossible.

        Raises LaunchError when the run cannot be launched at all.
        """

    def collect(self, run: Run) -> None:
        """Launch a supervisor that collects what a dead one left."""

    def is_launching(self, run_uuid: uuid.UUID) -> bool:
        """Whether a launch of this run is under way."""

    def launches(self) -> int:
        """How many launches are under way."""

    def take_failures(self) -> dict[uuid.UUID, str]:
        """The launches that ended without a supervisor since the last call: run -> what went wrong."""
