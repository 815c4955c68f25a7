"""Whose address stands in the audit: the connection's own, or the one in the header that the proxy writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.conf import settings as site
from django.test import RequestFactory

from scheduler.client_address import client_address

if TYPE_CHECKING:
    from pytest_django.fixtures import Settings


def address(remote: str, **headers: str) -> str:
    return client_address(RequestFactory(REMOTE_ADDR=remote).get("/", headers=headers))


@pytest.fixture
def proxied(settings: Settings) -> None:
    settings.SCHEDULER = {**site.SCHEDULER, "CLIENT_ADDRESS_HEADER": "X-Real-IP"}


def test_without_a_proxy_it_is_the_connections_own() -> None:
    assert address("192.0.2.7") == "192.0.2.7"


def test_without_a_proxy_no_header_is_believed() -> None:
    claims = {"X-Real-IP": "198.51.100.1", "X-Forwarded-For": "198.51.100.1", "Forwarded": "for=198.51.100.1"}
    assert address("192.0.2.7", **claims) == "192.0.2.7"


@pytest.mark.usefixtures("proxied")
def test_behind_a_proxy_it_is_what_the_proxy_says_and_never_the_proxys_own() -> None:
    assert address("", **{"X-Real-IP": "198.51.100.1", "X-Forwarded-For": "203.0.113.9"}) == "198.51.100.1"
    assert address("127.0.0.1") == ""


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (" 198.51.100.1 ", "198.51.100.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, 203.0.113.9", ""),
        ("<script>", ""),
        ("", ""),
    ],
)
def test_one_address_has_one_form_and_anything_else_is_none(given: str, expected: str) -> None:
    assert address("", **{"X-Real-IP": given}) == expected
