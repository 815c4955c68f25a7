"""A task that has asked one query and goes on, so that its memory can be looked at."""

import time

from scheduler.task import run

PATH = run.arguments[0]  # Django is set up from here on

from django.contrib.auth.models import User  # noqa: E402

User.objects.filter(username="nobody").exists()
with open(PATH, "a", encoding="ascii") as file:  # noqa: PTH123
    file.write("there\n")
time.sleep(600)
