"""Which admin the scheduler's pages are built on: Django's own, or django-unfold's where the site has installed that.

Under unfold a list's actions and a form's fields are usable with its own classes only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps

if TYPE_CHECKING or not apps.is_installed("unfold"):
    from django.contrib.admin import ModelAdmin, StackedInline, TabularInline
    from django.contrib.admin.helpers import ActionForm
else:
    from unfold.admin import ModelAdmin, StackedInline, TabularInline
    from unfold.forms import ActionForm

__all__ = ["IS_UNFOLD", "STYLES", "ActionForm", "ModelAdmin", "StackedInline", "TabularInline"]

IS_UNFOLD = apps.is_installed("unfold")
STYLES = {"all": ["scheduler/admin.css", *(["scheduler/unfold.css"] if IS_UNFOLD else [])]}
