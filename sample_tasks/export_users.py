"""Export all users of this site to CSV and JSON, whatever its user model is.

Password hashes are never exported, nor fields whose name says that they hold a secret.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from datetime import date, datetime
from typing import Any

from scheduler.task import run

SECRET = re.compile(r"passw|secret|token|hash|salt|otp|pin_?code|(api|private|recovery)_?key", re.IGNORECASE)
ROWS_AT_ONCE = 500


def columns(model: Any) -> list[Any]:
    """The model's own fields that may be shown."""
    from django.db import models

    return [
        field
        for field in model._meta.concrete_fields
        if not SECRET.search(field.name) and not isinstance(field, models.BinaryField)
    ]


def plain(value: Any) -> bool | int | float | str | None:
    """A value as JSON knows it."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value)


def cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe: people choose their own names."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def main() -> int:
    parser = argparse.ArgumentParser(description="Export all users of this site to users.csv and users.json.")
    parser.add_argument("--active", action="store_true", help="only users who may log in")
    arguments = parser.parse_args(run.arguments)

    from django.contrib.auth import get_user_model

    model = get_user_model()
    fields = columns(model)
    # The base manager: a site's default one may hide rows, and this exports them all.
    users = model._base_manager.order_by("pk")
    if arguments.active:
        if "is_active" not in {field.name for field in fields}:
            parser.error("the users of this site have no field is_active, so --active means nothing here")
        users = users.filter(is_active=True)
    has_groups = any(field.name == "groups" for field in model._meta.many_to_many)
    if has_groups:
        users = users.prefetch_related("groups")

    names = [field.attname for field in fields] + (["groups"] if has_groups else [])
    exported = 0
    with run.open_output("users.csv", newline="") as csv_file, run.open_output("users.json") as json_file:
        writer = csv.writer(csv_file)
        writer.writerow(names)
        json_file.write("[")
        for user in run.track(users.iterator(chunk_size=ROWS_AT_ONCE), "users", total=users.count()):
            row = {field.attname: plain(field.value_from_object(user)) for field in fields}
            groups = sorted(group.name for group in user.groups.all()) if has_groups else []
            writer.writerow([cell(value) for value in row.values()] + ([cell(", ".join(groups))] if has_groups else []))
            json_file.write(",\n" if exported else "\n")
            json_file.write(json.dumps({**row, "groups": groups} if has_groups else row, ensure_ascii=False))
            exported += 1
        json_file.write("\n]\n")
    run.message(f"{exported} user{'' if exported == 1 else 's'} exported.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
