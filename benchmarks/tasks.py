"""The peer procrastinate finds its tasks in a module of this name."""

from __future__ import annotations

from procrastinate.contrib.django import app

from benchmarks import work

one_query = app.task(name="benchmarks.one_query")(work.one_query)
