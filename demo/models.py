from __future__ import annotations

from django.db import models


class SetUp(models.Model):
    """The mark that this database has its demo: what a person deletes or changes afterwards stays so."""

    done_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        default_permissions = ()
