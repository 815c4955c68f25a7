from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Count, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from scheduler.wakeup import wake_on_commit

from .task import validate_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from .run import RunQuerySet


class ConcurrencyGroupQuerySet(models.QuerySet["ConcurrencyGroup"]):
    def with_in_use(self) -> Self:
        """Each with ``in_use``: how many runs of its tasks are processed, on all hosts."""
        return self.annotate(in_use=in_use_of(OuterRef("pk")))

    def with_waiting(self, now: datetime) -> Self:
        """Each with ``waiting``: how many runs of its tasks are due and wait for a place."""
        from .run import Run

        return self.annotate(waiting=_count(Run.objects.ready(now).in_lane(OuterRef("pk"))))

    def locked(self, keys: Iterable[int]) -> dict[int, ConcurrencyGroup]:
        """Those groups as they are now, kept from other pollers until the transaction's end; none costs no query.

        One that somebody else holds is left out: who never waits while holding locks is part of no deadlock.
        """
        return self.order_by("pk").select_for_update(no_key=True, skip_locked=True).in_bulk(set(keys))


class ConcurrencyGroup(models.Model):
    """Tasks of which only so many runs are processed at once, all of them together and on all hosts."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    max_runs = models.PositiveSmallIntegerField(
        _("runs at once"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text=_(
            "Of all its tasks together, on all machines. Lowered while more are running: they run on, and none starts "
            "until there is a place again."
        ),
    )
    description = models.TextField(_("description"), blank=True)

    objects = ConcurrencyGroupQuerySet.as_manager()

    class Meta:
        verbose_name = _("group")
        verbose_name_plural = _("groups (runs at once)")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(name="scheduler_group_has_a_place", condition=models.Q(max_runs__gte=1)),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and wake the pollers: there may be a place more."""
        super().save(*args, **kwargs)
        wake_on_commit()

    def clean(self) -> None:
        validate_name(self.name)


def in_use_of(group: OuterRef) -> Coalesce:
    """How many places of a group are taken, as an expression of a query."""
    from .run import Run

    return _count(Run.objects.processing().in_lane(group))


def _count(runs: RunQuerySet) -> Coalesce:
    counted = runs.order_by().values("lane").annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
