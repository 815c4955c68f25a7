"""The peer Celery: ``celery -A benchmarks.peer_celery worker``."""

from __future__ import annotations

import os

import django
from celery import Celery

from benchmarks import work

django.setup()
app = Celery(
    "benchmarks",
    broker=f"redis://127.0.0.1:{os.environ.get('BENCHMARK_REDIS_PORT', '6379')}/0",
    backend=f"redis://127.0.0.1:{os.environ.get('BENCHMARK_REDIS_PORT', '6379')}/1",
)
app.conf.worker_prefetch_multiplier = 1
app.conf.beat_max_loop_interval = 5
one_query = app.task(work.one_query, name="benchmarks.one_query")
