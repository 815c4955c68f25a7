"""The peer RQ: a worker that forks a process for each job, with Django loaded beforehand."""

from __future__ import annotations

import os

import django
from redis import Redis
from rq import Queue, Worker

from benchmarks import work  # noqa: F401  (loaded before the forks)


def queue() -> Queue:
    return Queue("benchmarks", connection=Redis(port=int(os.environ["BENCHMARK_REDIS_PORT"])))


if __name__ == "__main__":
    django.setup()
    import django.contrib.auth.models

    own = queue()
    Worker([own], connection=own.connection).work(logging_level="WARNING")
