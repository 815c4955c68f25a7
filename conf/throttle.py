"""Guessing passwords is slow: after some failures for a name, or from an address, no password is looked at for a while.

It stands first among the authentication backends, so it holds for every log-in page that there is or will be; the
middleware tells the person, with status 429. Settings: ``CACHES["logins"]``, which all web processes must share.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import random
import unicodedata
from typing import TYPE_CHECKING, Any

from django.contrib.auth.signals import user_logged_in
from django.core.cache import caches
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.shortcuts import render

from scheduler.client_address import client_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase

logger = logging.getLogger(__name__)

WINDOW_MINUTES = 15
FAILURES_OF_A_NAME = 10
FAILURES_OF_AN_ADDRESS = 30  # several people may share one


class LoginThrottle:
    """Refuses an attempt after too many failures; then not even the right password helps.

    It knows no user and no permission: without the methods for these, Django passes it over.
    """

    def authenticate(self, request: HttpRequest | None, username: str | None = None, **credentials: Any) -> None:
        if request is None or username is None:
            return  # not a log-in page
        address = client_address(request)
        taken: list[str] = []
        # The address first: one that is blocked leaves no trace of the names that it goes on to try.
        for what, places in ((_network(address), FAILURES_OF_AN_ADDRESS), (_same(username), FAILURES_OF_A_NAME)):
            if not what:
                continue  # the address is not known, and is nobody's fault
            place = _take_place(what, places)
            if place is None:
                request.login_refused = True  # type: ignore[attr-defined]
                logger.warning("log-in refused after too many failures: %.150r from %s", username, address or "?")
                raise PermissionDenied
            taken.append(place)
        request.login_places = taken  # type: ignore[attr-defined]


@receiver(user_logged_in, dispatch_uid="conf.throttle")
def _give_back(request: HttpRequest | None, **_kwargs: object) -> None:
    """Only failures count. Those before the success still do: they need not have been the same person's."""
    caches["logins"].delete_many(getattr(request, "login_places", []))


class RefusedLogins:
    """Middleware: in place of the log-in page, one sentence and 429."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if getattr(request, "login_refused", False):
            response = render(request, "429.html", {"minutes": WINDOW_MINUTES}, status=429)
            response.headers["Retry-After"] = str(WINDOW_MINUTES * 60)
            response.headers["Cache-Control"] = "private, no-store"
        return response


def _take_place(what: str, places: int) -> str | None:
    """Take one of the places, each of which is free again after the window; None when there is none.

    An attempt takes its place before the password is looked at, and ``add`` gives a place to one only: attempts at
    the same time are no way around, as they would be with a counter that is read and written.
    """
    cache = caches["logins"]
    digest = hashlib.sha256(what.encode(errors="surrogatepass")).hexdigest()
    keys = [f"login:{digest}:{place}" for place in range(places)]
    taken = cache.get_many(keys)
    free = [key for key in keys if key not in taken]
    random.shuffle(free)  # so that attempts at the same time rarely try for the same one
    return next((key for key in free if cache.add(key, 1, WINDOW_MINUTES * 60)), None)


def _same(username: str) -> str:
    """One form for all ways to write a name: another case, other spaces or wide letters are no other name."""
    return "name " + "".join(unicodedata.normalize("NFKC", username).casefold().split())


def _network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one: a customer gets at least that many, and could use each once."""
    if not address:
        return ""
    parsed = ipaddress.ip_address(address)
    return f"address {parsed if parsed.version == 4 else ipaddress.ip_network((int(parsed), 64), strict=False)}"
