"""Groups with real pollers: however many there are, no more runs are in progress than the group has places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.models import ConcurrencyGroup
from scheduler.states import Status

if TYPE_CHECKING:
    from .conftest import World

# Notes in one file when it begins and ends.
NOTES = """
    import os, time
    def note(what):
        with open(os.environ["FOLDER"] + "/notes", "a") as notes:
            notes.write(what + "\\n")
    note("+1")
    time.sleep(0.1)
    note("-1")
    """


def test_three_pollers_run_no_more_of_a_group_than_it_has_places(world: World) -> None:
    group = ConcurrencyGroup.objects.create(name="database", max_runs=2)
    runs = [world.start(world.task(NOTES, name=f"member{number}", group=group)) for number in range(10)]
    for _ in range(3):
        world.poller_process()
    assert {world.finish(run).status for run in runs} == {Status.COMPLETED}
    changes = [int(line) for line in world.lines("notes")]
    in_progress = [sum(changes[: number + 1]) for number in range(len(changes))]
    assert len(changes) == 20
    # What is asked is the programs' own account; claims are written with the time at which their round began.
    assert max(in_progress) <= 2
