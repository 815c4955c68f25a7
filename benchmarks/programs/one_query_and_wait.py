"""A task that has asked one query and goes on, so that its memory can be looked at."""

import time

from django.contrib.auth.models import User

from scheduler.task import run  # isort: split  (it sets Django up, which the models need)

User.objects.filter(username="nobody").exists()
with open(run.arguments[0], "a", encoding="ascii") as file:  # noqa: PTH123
    file.write("there\n")
time.sleep(600)
