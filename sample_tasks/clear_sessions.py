"""Remove expired sessions: Django's own ``clearsessions`` command as a task, with the number of rows that went.

Any management command can be a task in this way: call it, and say what it did.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

from scheduler.task import run


def expired_sessions() -> Any:
    """The rows of expired sessions, or None when this site keeps its sessions elsewhere (cache, files, cookies)."""
    from django.conf import settings
    from django.utils import timezone

    store = import_module(settings.SESSION_ENGINE).SessionStore
    if not hasattr(store, "get_model_class"):
        return None
    return store.get_model_class().objects.filter(expire_date__lt=timezone.now())


def main() -> int:
    argparse.ArgumentParser(description="Remove expired sessions.").parse_args(run.arguments)

    from django.core.management import CommandError, call_command

    rows = expired_sessions()
    before = rows.count() if rows is not None else 0
    try:
        call_command("clearsessions")
    except CommandError as error:
        print(f"The sessions cannot be cleared: {error}", file=sys.stderr)
        return 1
    if rows is None:
        run.message(
            "Expired sessions were cleared; this site does not keep them in the database, so nobody counts them."
        )
    else:
        gone = before - rows.count()
        run.message(f"{gone} expired session{'' if gone == 1 else 's'} removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
