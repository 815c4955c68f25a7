"""The tests' settings for a site whose admin is django-unfold's."""

from tests.settings import *  # noqa: F403

INSTALLED_APPS = ["unfold", *INSTALLED_APPS]  # noqa: F405
