"""What triggered a run, and what it triggered: only what one may see is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scheduler import access

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from scheduler.models import Run

TRIGGERED_AT_MOST = 20


def chain(user: User, run: Run) -> dict[str, Any]:
    """The run before it (None where it may not be seen, or is deleted), and the newest of those after it."""
    visible = access.visible_runs(user).select_related("task")
    before = visible.filter(pk=run.triggered_by_id).first() if run.triggered_by_id is not None else None
    after = list(visible.filter(triggered_by=run).order_by("-pk")[: TRIGGERED_AT_MOST + 1])
    return {
        "before": before,
        "after": after[:TRIGGERED_AT_MOST],
        "more_after": len(after) > TRIGGERED_AT_MOST,
    }
