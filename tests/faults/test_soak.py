"""Runs at random, kills at random: see soaking.py. ``tests/run --soak N`` does more of it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from django.db import connection

from scheduler import outputs
from tests import servers

from .soaking import Soak

if TYPE_CHECKING:
    from tests.runs.conftest import World

IS_LONG = servers.in_full_run() or (servers.in_ci() and connection.vendor == "sqlite")
RUNS = 500 if IS_LONG else 100


def test_nothing_is_lost_nothing_is_started_twice_no_status_is_wrong_and_no_process_is_left(world: World) -> None:
    outputs.make_root()
    seed = random.randrange(10**6)
    result = Soak(world.folder, world.owner, runs=RUNS, seed=seed, say=print).run()
    assert result.runs >= RUNS
    assert result.is_good, "\n".join([*result.remarks, f"seed {seed}", str(result)])
