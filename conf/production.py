"""What a production site is refused for: each in one sentence, before it serves anything."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from pathlib import Path

KEY_CHARACTERS = 50
KEY_DIFFERENT_CHARACTERS = 20
MAKE_A_KEY = "python3 -c 'import secrets; print(secrets.token_urlsafe(60))'"


def demand_safe(*, secret_key: str, debug: bool, allowed_hosts: list[str]) -> None:
    """Raises ImproperlyConfigured for what no site with DJANGO_HTTPS=1 may be run with."""
    if debug:
        raise ImproperlyConfigured(
            "DJANGO_DEBUG=1 shows the site's secrets to visitors and is refused together with DJANGO_HTTPS=1; "
            "take DJANGO_DEBUG out of the environment."
        )
    if secret_key.startswith("django-insecure-"):
        raise ImproperlyConfigured(
            f"The secret key is an example that others know too; make one of your own: {MAKE_A_KEY}"
        )
    if len(secret_key) < KEY_CHARACTERS or len(set(secret_key)) < KEY_DIFFERENT_CHARACTERS:
        raise ImproperlyConfigured(
            f"The secret key can be guessed: it has {len(secret_key)} characters, {len(set(secret_key))} of them "
            f"different, and at least {KEY_CHARACTERS} random ones are needed; make a new one: {MAKE_A_KEY}"
        )
    if not allowed_hosts:
        raise ImproperlyConfigured(
            "DJANGO_ALLOWED_HOSTS is not set; name the hosts under which the site is served, separated by commas."
        )
    if any(host.strip(".") in {"*", ""} for host in allowed_hosts):
        raise ImproperlyConfigured(
            "DJANGO_ALLOWED_HOSTS allows every host, so that anybody could send people links to another site in its "
            "name; name the hosts under which the site is served."
        )


def demand_key_file(file: Path) -> None:
    """Raises ImproperlyConfigured when there is no secret key, or one that everybody can read."""
    if not file.exists():
        raise ImproperlyConfigured(
            f"There is no secret key: neither is DJANGO_SECRET_KEY set, nor is there a file {file}; "
            f"set the first to what this prints: {MAKE_A_KEY}"
        )
    if file.stat().st_mode & stat.S_IRWXO:
        raise ImproperlyConfigured(f"Every user of this machine may read the secret key; run chmod o= {file}")
