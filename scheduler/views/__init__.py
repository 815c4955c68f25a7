"""The staff UI at ``/scheduler/`` and the downloads beside it."""
