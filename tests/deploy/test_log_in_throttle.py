"""Guessing passwords: how far one gets, on both log-in pages, and who else feels it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as site
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client

from conf import throttle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User
    from pytest_django.fixtures import Settings

PASSWORD = "correct horse battery staple"
WIDE = "".join(chr(ord(letter) - ord("!") + 0xFF01) for letter in "olivia")  # as an East Asian keyboard writes it
SITE, ADMIN = "/accounts/login/", "/admin/login/"


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(throttle, "FAILURES_OF_A_NAME", 3)
    monkeypatch.setattr(throttle, "FAILURES_OF_AN_ADDRESS", 5)
    caches["logins"].clear()
    yield
    caches["logins"].clear()


@pytest.fixture
def olivia(admin: User) -> User:
    admin.username = "olivia"
    admin.set_password(PASSWORD)
    admin.save()
    return admin


def log_in(name: str, password: str = "wrong", *, page: str = SITE, address: str = "192.0.2.1", **extra: Any) -> int:
    return Client(REMOTE_ADDR=address).post(page, {"username": name, "password": password}, **extra).status_code


@pytest.mark.parametrize("page", [SITE, ADMIN])
def test_after_too_many_failures_even_the_right_password_is_refused(olivia: User, page: str) -> None:
    assert [log_in("olivia", page=page) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert log_in("olivia", PASSWORD, page=page) == 429


def test_both_pages_count_together(olivia: User) -> None:
    assert [log_in("olivia", page=page) for page in (SITE, ADMIN, SITE, ADMIN)] == [200, 200, 200, 429]


def test_the_answer_is_one_clear_sentence_that_tells_nothing_about_the_account(olivia: User) -> None:
    pages = []
    for name in ("olivia", "nobody"):
        for _ in range(3):
            log_in(name, address="")
        client = Client(REMOTE_ADDR="")
        answer = client.post(SITE, {"username": name, "password": PASSWORD})
        assert answer.status_code == 429
        assert answer["Retry-After"] == "900"
        assert "_auth_user_id" not in client.session
        pages.append(answer.content)
    assert pages[0] == pages[1]
    assert b"There were too many failed log-ins for this name or from your address; wait 15 minutes" in pages[0]


def test_another_way_to_write_the_name_is_no_way_around(olivia: User) -> None:
    for name in ("OLIVIA", " olivia", "olivia\u2003", WIDE, "o livia"):
        log_in(name, address="")
    assert log_in("olivia", PASSWORD, address="") == 429


def test_an_address_that_tries_many_names_is_refused_and_leaves_no_more_traces(olivia: User) -> None:
    assert [log_in(f"guess {number}") for number in range(6)] == [200] * 5 + [429]
    kept = len(caches["logins"]._cache)  # type: ignore[attr-defined]
    for number in range(100, 150):
        assert log_in(f"guess {number}") == 429
    assert len(caches["logins"]._cache) == kept  # type: ignore[attr-defined]
    assert log_in("olivia", PASSWORD) == 429
    assert log_in("olivia", PASSWORD, address="192.0.2.2") == 302


def test_the_addresses_of_one_ipv6_network_count_as_one(olivia: User) -> None:
    for number in range(5):
        log_in(f"guess {number}", address=f"2001:db8::{number:x}")
    assert log_in("olivia", PASSWORD, address="2001:db8::ffff") == 429
    assert log_in("olivia", PASSWORD, address="2001:db8:0:1::1") == 302


def test_a_claimed_address_is_not_believed(olivia: User) -> None:
    answers = [log_in(f"guess {n}", headers={"X-Real-IP": f"192.0.2.{n}"}) for n in range(6)]
    assert answers[-1] == 429


def test_behind_the_proxy_the_address_is_the_clients(olivia: User, settings: Settings) -> None:
    settings.SCHEDULER = {**site.SCHEDULER, "CLIENT_ADDRESS_HEADER": "X-Real-IP"}
    for number in range(5):
        log_in(f"guess {number}", address="", headers={"X-Real-IP": "198.51.100.1"})
    assert log_in("olivia", PASSWORD, address="", headers={"X-Real-IP": "198.51.100.1"}) == 429
    assert log_in("olivia", PASSWORD, address="", headers={"X-Real-IP": "198.51.100.2"}) == 302


def test_log_ins_that_succeed_do_not_count(olivia: User) -> None:
    assert [log_in("olivia", PASSWORD) for _ in range(8)] == [302] * 8


def test_a_success_does_not_wipe_out_the_failures_of_somebody_who_guesses_meanwhile(olivia: User) -> None:
    log_in("olivia", address="192.0.2.66")
    log_in("olivia", address="192.0.2.66")
    assert log_in("olivia", PASSWORD) == 302
    log_in("olivia", address="192.0.2.66")
    assert log_in("olivia", address="192.0.2.66") == 429


def test_the_block_ends_by_itself(olivia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        log_in("olivia")
    assert log_in("olivia", PASSWORD) == 429
    cache = caches["logins"]
    expiries = [expiry for expiry in cache._expire_info.values() if expiry]  # type: ignore[attr-defined]
    now = min(expiries)
    # As the cache sees it a window later; its clock is the only one that counts.
    monkeypatch.setattr("django.core.cache.backends.locmem.time.time", lambda: now + 60)
    monkeypatch.setattr("django.core.cache.backends.base.time.time", lambda: now + 60)
    assert log_in("olivia", PASSWORD) == 302


def test_a_session_that_exists_is_not_disturbed(olivia: User) -> None:
    client = Client(REMOTE_ADDR="192.0.2.1")
    client.force_login(olivia)
    for _ in range(6):
        log_in("olivia")
    assert client.get("/scheduler/").status_code == 200


def test_people_without_the_right_to_the_admin_count_as_failures_there(olivia: User) -> None:
    olivia.is_staff = olivia.is_superuser = False
    olivia.save()
    assert [log_in("olivia", PASSWORD, page=ADMIN) for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.django_db(transaction=True)
def test_in_the_database_attempts_at_the_same_time_share_the_places(settings: Settings) -> None:
    settings.CACHES = {
        **site.CACHES,
        "logins": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "logins_of_a_test"},
    }
    call_command("createcachetable", verbosity=0)

    def attempt(_number: int) -> bool:
        try:
            return throttle._take_place("name olivia", 3) is not None
        finally:
            connections.close_all()

    try:
        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(attempt, range(24))) == 3
        assert not attempt(0)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE logins_of_a_test")
