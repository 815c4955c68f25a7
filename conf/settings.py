"""The project's settings, for the demo and for production; everything that differs comes from the environment.

``DJANGO_HTTPS=1`` is the one switch of a production site; what is missing or unsafe there is refused in one sentence.
Each variable that is read here is described in docs/settings.md; a test fails when one is missing there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from conf import production

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("SCHEDULER_VAR", BASE_DIR / "var"))
# Served over https, behind a proxy on this machine that says so: see docs/settings.md before switching it on.
HTTPS = os.environ.get("DJANGO_HTTPS", "") == "1"


def _secret_key() -> str:
    """From DJANGO_SECRET_KEY, or a file that is made (0600) when it is missing."""
    if key := os.environ.get("DJANGO_SECRET_KEY"):
        return key
    file = Path(os.environ.get("DJANGO_SECRET_KEY_FILE", VAR / "secret_key"))
    try:
        if HTTPS:
            production.demand_key_file(file)
        elif not file.exists():
            _make_secret_key(file)
        key = file.read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"The secret key cannot be kept in {file} ({error.strerror}). "
            "Make its folder writable, or set DJANGO_SECRET_KEY."
        ) from error
    if not key:
        raise ImproperlyConfigured(f"The secret key file {file} is empty. Delete it, and a new one is made.")
    return key


def _make_secret_key(file: Path) -> None:
    """Written beside it and then linked: of two processes that start at once, neither reads half a key."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(60))
        with contextlib.suppress(FileExistsError):
            os.link(written, file)
    finally:
        written.unlink()


SECRET_KEY = _secret_key()
DEBUG = os.environ.get("DJANGO_DEBUG", "") == "1"
ALLOWED_HOSTS = [
    host.strip()
    for host in os.environ.get("DJANGO_ALLOWED_HOSTS", "" if HTTPS else "localhost,127.0.0.1,[::1]").split(",")
    if host.strip()
]
if HTTPS:
    production.demand_safe(secret_key=SECRET_KEY, debug=DEBUG, allowed_hosts=ALLOWED_HOSTS)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "guardian",
    "scheduler",
    "demo",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "conf.csp.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "conf.throttle.RefusedLogins",
]

ROOT_URLCONF = "conf.urls"
WSGI_APPLICATION = "conf.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "conf" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES: dict[str, Any] = {
    # Kept between requests: connecting costs more than most pages ask of the database.
    "default": dj_database_url.config(
        default=f"sqlite:///{VAR / 'db.sqlite3'}", conn_max_age=60, conn_health_checks=True
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A deferred transaction that reads and then writes fails with "database is locked" beside other writers.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
AUTHENTICATION_BACKENDS = [
    "conf.throttle.LoginThrottle",  # first: it refuses before a password is looked at
    "django.contrib.auth.backends.ModelBackend",
    "guardian.backends.ObjectPermissionBackend",
]
ANONYMOUS_USER_NAME = None  # guardian: no user row for anonymous visitors
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

LANGUAGE_CODE = os.environ.get("DJANGO_LANGUAGE", "en")  # of commands and mails; of pages, where no other is asked for
LANGUAGES = [("en", "English"), ("de", "Deutsch")]  # complete ones: a page in two languages helps nobody
LOCALE_PATHS = [BASE_DIR / "conf" / "locale"]
TIME_ZONE = os.environ.get("DJANGO_TIME_ZONE", "UTC")
USE_I18N = True
USE_TZ = True

SESSION_COOKIE_AGE = 12 * 3600  # a working day
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = True
CSRF_COOKIE_HTTPONLY = True  # the scripts take the token from the page
X_FRAME_OPTIONS = "DENY"
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    # With this prefix, browsers take them from this host over https only, and from no other subdomain.
    SESSION_COOKIE_NAME = "__Host-sessionid"
    CSRF_COOKIE_NAME = "__Host-csrftoken"
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    # HSTS speaks for this host only: whether all its subdomains are on https too, only its owner knows.
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

STATIC_URL = "/static/"
STATIC_ROOT = VAR / "static"
if HTTPS:
    # A file's name holds its hash: browsers may keep it for a year, and an upgrade is a new name.
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
    }

# Where failed log-ins are counted: with several web processes in a place that all of them share
# (manage.py createcachetable makes it).
_memory = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 10_000}}
_table = {
    "BACKEND": "django.core.cache.backends.db.DatabaseCache",
    "LOCATION": "django_cache_logins",
    "OPTIONS": {"MAX_ENTRIES": 100_000},
}
CACHES: dict[str, dict[str, Any]] = {
    "default": {**_memory, "LOCATION": "default"},
    "logins": _table if HTTPS else {**_memory, "LOCATION": "logins"},
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _pairs(given: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise ImproperlyConfigured(
            f"“{given}” cannot be understood; write SCHEDULER_PROGRAM_ROOTS and SCHEDULER_PROGRAM_USERS as "
            "name=value,name=value."
        )
    return {name.strip(): value.strip() for name, _, value in pairs}


SCHEDULER: dict[str, Any] = {
    "ROOT": Path(os.environ.get("SCHEDULER_ROOT", VAR / "scheduler")),
    "PROGRAM_ROOTS": _pairs(os.environ.get("SCHEDULER_PROGRAM_ROOTS", ""))
    or {"sample_tasks": BASE_DIR / "sample_tasks"},
    "PROGRAM_USERS": _pairs(os.environ.get("SCHEDULER_PROGRAM_USERS", "")),
    "STORE_GROUP": os.environ.get("SCHEDULER_STORE_GROUP", ""),
    "CGROUP": os.environ.get("SCHEDULER_CGROUP", ""),
    "CLIENT_ADDRESS_HEADER": "X-Real-IP" if HTTPS else "",
    # What this file reads: a task that uses the site's models needs the same values.
    "DJANGO_ENVIRONMENT": [
        "DATABASE_URL",
        "DJANGO_ALLOWED_HOSTS",
        "DJANGO_DEBUG",
        "DJANGO_HTTPS",
        "DJANGO_LANGUAGE",
        "DJANGO_SECRET_KEY",
        "DJANGO_SECRET_KEY_FILE",
        "DJANGO_TIME_ZONE",
        "SCHEDULER_PROGRAM_ROOTS",
        "SCHEDULER_PROGRAM_USERS",
        "SCHEDULER_ROOT",
        "SCHEDULER_STORE_GROUP",
        "SCHEDULER_VAR",
        "SENDFILE_BACKEND",
    ],
}

# django-sendfile2. Without nginx the files are streamed by a small backend of the scheduler's own.
SENDFILE_BACKEND = os.environ.get("SENDFILE_BACKEND", "scheduler.sendfile")
SENDFILE_ROOT = SCHEDULER["ROOT"] / "store"
SENDFILE_URL = "/protected/"

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "conf": {"handlers": ["console"], "level": "INFO"},
        "scheduler": {"handlers": ["console"], "level": "INFO"},
        # runserver's line for each request: wanted while developing, noise beside the demo's poller.
        "django.server": {"handlers": ["console"], "level": "INFO" if DEBUG else "WARNING", "propagate": False},
    },
}
if not DEBUG:
    # By itself Django would send errors by mail only; the page of an error says that it is in the log.
    LOGGING["loggers"]["django"] = {"handlers": ["console"], "level": "ERROR"}
