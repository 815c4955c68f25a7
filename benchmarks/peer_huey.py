"""The peer huey, with its own SQLite file as the queue: ``huey_consumer.py benchmarks.peer_huey.huey``."""

from __future__ import annotations

import os

import django
from huey import SqliteHuey

from benchmarks import work

django.setup()
huey = SqliteHuey("benchmarks", filename=f"{os.environ['SCHEDULER_VAR']}/huey.db", store_none=True)
one_query = huey.task()(work.one_query)
