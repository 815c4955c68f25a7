"""Who sent a request, for the audit and for what counts log-ins: one function, so that both mean the same address."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The client's IP address in its usual form; ``""`` when it is not known.

    ``SCHEDULER["CLIENT_ADDRESS_HEADER"]`` names the header in which the proxy in front writes it. Nothing else of the
    request is believed: a header that the proxy does not overwrite is the client's own claim.
    """
    header = scheduler_settings().client_address_header
    given = request.headers.get(header, "") if header else request.META.get("REMOTE_ADDR", "")
    try:
        address = ipaddress.ip_address(given.strip())
    except ValueError:
        return ""  # a Unix socket has no address; a list of addresses is no header of our proxy
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
