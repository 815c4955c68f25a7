"""The project's settings with what the measurements need beside: the same for the scheduler and for every peer."""

import os
from pathlib import Path

from conf.settings import *  # noqa: F403

PROJECT = Path(__file__).resolve().parent.parent
# The peers whose tables a measurement needs, such as "django_q,django_celery_beat"; none for the scheduler itself.
PEERS = [name for name in os.environ.get("BENCHMARK_PEERS", "").split(",") if name]
WORKERS = int(os.environ.get("BENCHMARK_WORKERS", "2"))

INSTALLED_APPS += ["benchmarks", *PEERS]  # noqa: F405
ROOT_URLCONF = "benchmarks.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SCHEDULER |= {  # noqa: F405
    "PROGRAM_ROOTS": {"benchmarks": PROJECT / "benchmarks" / "programs"},
    "CAPACITY": WORKERS,
    # A task can only lower it.
    "LOG_BYTES": int(os.environ.get("BENCHMARK_LOG_MB", "256")) * 1024**2,
    "DJANGO_ENVIRONMENT": [*SCHEDULER["DJANGO_ENVIRONMENT"], "BENCHMARK_WORKERS", "BENCHMARK_LOG_MB"],  # noqa: F405
}

# Peers
Q_CLUSTER = {
    "name": "benchmarks",
    "orm": "default",
    "workers": WORKERS,
    "recycle": 1,  # a process of its own for each task
    "timeout": 60,
    "retry": 120,
    "save_limit": 0,
    "max_attempts": 1,
    "log_level": "WARNING",
}
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
