"""Looking at a set-up that runs: what only shows on the machine itself, and what to do about it.

What the settings alone tell is the business of the system checks (``checks``); they are one line here.
"""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import shutil
import ssl
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import Permission
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.db import DatabaseError, connection, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse

import scheduler
from scheduler import programs
from scheduler.checks import NGINX_BACKEND
from scheduler.conf import scheduler_settings
from scheduler.models import Poller
from scheduler.models.task import TASK_PERMISSIONS
from scheduler.probe import probe
from scheduler.sqlite_lock import writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

GIB = 1024**3
FREE_BYTES = GIB
CLOCK_SECONDS = 2.0
FETCH_SECONDS = 15.0


class Problem(Exception):  # noqa: N818  (a finding, not an error)
    """Something is wrong; the text says what, and what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: what was looked at, whether it is well, and what was seen or is to be done."""

    what: str
    is_well: bool
    text: str


def examine(*, url: str, now: datetime) -> Iterator[Finding]:
    """Look at everything, one finding each; ``url`` is the site's public address, empty to leave out the downloads."""
    looks: dict[str, Callable[[], str]] = {
        "database": _database,
        "migrations": _migrations,
        "settings": _settings,
        "permissions": _permissions,
        "cache tables": _cache_tables,
        "folders": _folders,
        "store group": _store_group,
        "disk": _disk,
        "programs": _programs,
        "task users": _task_users,
        "poller": lambda: _poller(now),
        "warm starts": lambda: _warm_starts(now),
        "limits": lambda: _limits(now),
        "downloads": lambda: _downloads(url),
    }
    for what, look in looks.items():
        try:
            yield Finding(what, True, look())
        except Problem as problem:
            yield Finding(what, False, str(problem))
        except DatabaseError as error:
            yield Finding(what, False, f"the database says: {str(error).strip().splitlines()[0]}")
        except OSError as error:
            who = pwd.getpwuid(os.geteuid()).pw_name
            place = f": {error.filename}" if error.filename else ""
            yield Finding(
                what, False, f"{error.strerror or error}{place} (for the user {who}; ask as the poller's user)"
            )


def _database() -> str:
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.execute("SELECT 1")
            holder = writer(str(connection.settings_dict["NAME"])) if connection.vendor == "sqlite" else None
            if holder is not None and holder.is_stopped:
                raise Problem(f"nobody can write: {holder}")
            return f"{connection.vendor} answers"
        cursor.execute("SELECT EXTRACT(EPOCH FROM clock_timestamp())")
        [there] = cursor.fetchone()
    apart = abs(float(there) - time.time())
    if apart > CLOCK_SECONDS:
        raise Problem(
            f"the clocks of this machine and of the database are {apart:.0f} s apart; "
            "set both by NTP (apt-get install systemd-timesyncd)"
        )
    return f"{connection.vendor} answers, its clock is ours"


def _migrations() -> str:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        raise Problem(f"pending: {len(plan)}, the first is {plan[0][0]}; run manage.py migrate")
    return "none is pending"


def _settings() -> str:
    found = [
        message
        for message in checks.run_checks(databases=list(connections))
        if message.level >= checks.WARNING and not message.is_silenced()
    ]
    if found:
        raise Problem(f"{len(found)} to mend, the first: {found[0].msg} (manage.py check tells them all)")
    return "the system checks find nothing"


def _permissions() -> str:
    wanted = set(TASK_PERMISSIONS)
    there = Permission.objects.filter(content_type__app_label="scheduler", content_type__model="task")
    missing = sorted(wanted - set(there.values_list("codename", flat=True)))
    if missing:
        raise Problem(f"not in the database: {', '.join(missing)}; run manage.py migrate")
    return f"the {len(wanted)} permissions on tasks are there"


def _cache_tables() -> str:
    count = 0
    for alias in settings.CACHES:
        cache = caches[alias]
        if isinstance(cache, BaseDatabaseCache):
            database = connections[router.db_for_read(cache.cache_model_class)]
            table = settings.CACHES[alias]["LOCATION"]
            if table not in database.introspection.table_names():
                raise Problem(f"{table} of the cache {alias!r} is missing; run manage.py createcachetable")
            count += 1
    return f"{count} there" if count else "none is used"


def _folders() -> str:
    given = scheduler_settings()
    owner = _look(given.root).st_uid
    # Folder -> the bits that others need, and those that they must not have.
    wanted = {
        given.root: (0o711, 0o022),
        given.root / "runs": (0o711, 0o066),
        given.root / "wake": (0o2750, 0o027),
        given.store: (0o2750, 0o027),
    }
    for folder, (mode, forbidden) in wanted.items():
        found = _look(folder)
        if found.st_uid != owner:
            raise Problem(f"{folder} belongs to {_user(found.st_uid)} and not to {_user(owner)}; run chown on it")
        if found.st_mode & forbidden or mode & ~stat.S_IMODE(found.st_mode):
            raise Problem(f"{folder} has the mode {stat.S_IMODE(found.st_mode):o}; run chmod {mode:o} {folder}")
    return f"{given.root} and what is in it belong to {_user(owner)}"


def _look(folder: Path) -> os.stat_result:
    try:
        found = folder.lstat()
    except FileNotFoundError as error:
        raise Problem(f"{folder} is missing; the poller makes it when it starts") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Problem(f"{folder} is no folder")
    return found


def _store_group() -> str:
    given = scheduler_settings()
    name = given.store_group
    if not name:
        return "none is set: only the poller's own group reads the store"
    try:
        group = grp.getgrnam(name)
    except KeyError as error:
        raise Problem(f"there is no Unix group {name}; run groupadd --system {name}") from error
    for folder in (given.store, given.root / "wake"):
        if _look(folder).st_gid != group.gr_gid:
            raise Problem(f"{folder} is not of the group {name}; run chgrp {name} {folder} && chmod 2750 {folder}")
    return f"{name} ({', '.join(group.gr_mem) or 'no member besides those whose own group it is'})"


def _disk() -> str:
    given = scheduler_settings()
    seen = []
    for folder in (given.root, given.store):
        free = shutil.disk_usage(folder).free
        if free < FREE_BYTES:
            raise Problem(f"only {free / GIB:.1f} GiB are free in {folder}; purge old runs, or make room")
        inodes = os.statvfs(folder)
        if inodes.f_files and inodes.f_favail * 50 < inodes.f_files:
            raise Problem(f"hardly any more files fit into {folder} (inodes); purge old runs")
        seen.append(f"{free / GIB:.0f} GiB free in {folder}")
    return ", ".join(dict.fromkeys(seen))


def _programs() -> str:
    for name, folder in scheduler_settings().program_roots.items():
        if not folder.is_dir():
            raise Problem(f"the folder {folder} of {name!r} is missing; make it")
        mode = folder.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Problem(f"others than its owner can write into {folder}; run chmod go-w {folder}")
        if not os.access(folder, os.R_OK | os.X_OK):
            raise Problem(f"{folder} cannot be read by {_user(os.geteuid())}; run chmod o+rx {folder}")
    return f"{len(programs.found())} can be run"


def _task_users() -> str:
    users = scheduler_settings().program_users
    for root, name in users.items():
        try:
            pwd.getpwnam(name)
        except KeyError as error:
            raise Problem(f"there is no Unix user {name} for the programs of {root!r}; run adduser --system") from error
    return ", ".join(f"{root} as {name}" for root, name in users.items()) or "all tasks run as the poller's user"


def _poller(now: datetime) -> str:
    path = scheduler_settings().root / "host.json"
    try:
        host = json.loads(path.read_text())["id"]
    except FileNotFoundError as error:
        raise Problem("none was ever up on this machine; run systemctl start scheduler-poller") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(
            f"{path} is damaged; restore it, or delete it if no run of this machine is in progress"
        ) from error
    up = list(Poller.objects.alive(now).filter(host=host))
    if not up:
        raise Problem("none is up on this machine; run systemctl start scheduler-poller, and journalctl -u it")
    full = [poller for poller in up if poller.is_out_of_room]
    if full:
        raise Problem(f"{full[0]} starts no run, since its disk is nearly full; purge old runs, or make room")
    old = {poller.version for poller in up} - {scheduler.__version__}
    if old:
        raise Problem(f"version {min(old)} runs, {scheduler.__version__} is installed; restart it")
    return ", ".join(f"{poller} reported {(now - poller.seen_at).total_seconds():.0f} s ago" for poller in up)


def _warm_starts(now: datetime) -> str:
    if not scheduler_settings().warm:
        return "switched off: SCHEDULER['WARM'] is False"
    cold = list(Poller.objects.alive(now).exclude(cold_reason=""))
    if cold:
        said = "; ".join(f"{poller}: {' '.join(poller.cold_reason.split())}" for poller in cold)
        raise Problem(f"runs start slowly, mend this or set SCHEDULER['WARM'] to False: {said}")
    return "runs are forked from a process that has Django loaded"


def _limits(now: datetime) -> str:
    if scheduler_settings().cgroup is None:
        return "limits of memory and processes of a whole run are not enforced: SCHEDULER['CGROUP'] is not set"
    without = list(Poller.objects.alive(now).exclude(limits_problem=""))
    if without:
        said = "; ".join(f"{poller}: {poller.limits_problem}" for poller in without)
        raise Problem(f"memory and processes of a whole run are not limited, see docs/limits.md: {said}")
    return "memory and processes of a whole run are limited where a task says so"


def _downloads(url: str) -> str:
    """A probe has to arrive through the public address, and its file must not be there for the asking."""
    if not url:
        return "not looked at; give --url https://… of the site"
    with probe() as sent:
        answer = _fetch(url, reverse("scheduler:probe", args=[sent.token]))
        if answer.status != http.client.OK:
            raise Problem(
                f"the probe was answered with {answer.status}, not 200; compare SENDFILE_URL ({settings.SENDFILE_URL}) "
                f"and the store ({sent.path.parent}) with nginx's internal location, and let nginx read the store"
            )
        if answer.content != sent.content:
            raise Problem("something else than the probe arrived; another site answers under this address")
        for name, part in {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}.items():
            if part not in answer.headers.get(name, ""):
                raise Problem(f"the header {name} did not arrive; take over nginx's internal location as it is")
        if settings.SENDFILE_BACKEND != NGINX_BACKEND:
            return "a probe arrived, sent by Django itself"
        inside = settings.SENDFILE_URL + sent.path.name
        direct = _fetch(url, inside)
        if direct.status != http.client.NOT_FOUND or sent.content in direct.content:
            raise Problem(
                f"everybody can ask for {settings.SENDFILE_URL} ({direct.status} instead of 404); "
                "the location needs “internal;”"
            )
    return "a probe arrived through nginx, and cannot be asked for directly"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes


def _fetch(url: str, path: str) -> _Answer:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Problem(f"{url} is no address of a site; write https://name")
    connected: http.client.HTTPConnection
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        connected = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=FETCH_SECONDS, context=tls)
    else:
        connected = http.client.HTTPConnection(parts.hostname, parts.port, timeout=FETCH_SECONDS)
    try:
        connected.request("GET", path)
        response = connected.getresponse()
        return _Answer(response.status, response.headers, response.read(100_000))
    except ssl.SSLCertVerificationError as error:
        raise Problem(
            f"the certificate of {url} is not trusted ({error.verify_message}); for one of your own, set "
            "SSL_CERT_FILE to it"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise Problem(f"{url} does not answer ({error}); run systemctl status nginx scheduler-web") from error
    finally:
        connected.close()


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
