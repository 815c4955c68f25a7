from __future__ import annotations

import hashlib
from datetime import datetime  # noqa: TC003

from django.db import models
from django.utils.translation import gettext_lazy as _


class ProgramVersion(models.Model):
    """What a run was started with: the content of its program, the interpreter, the names of its variables.

    Runs share these rows: one is new only when something has changed.
    """

    digest = models.CharField(max_length=64, unique=True)  # of all the rest
    program = models.CharField(_("program"), max_length=600)
    sha256 = models.CharField("SHA-256", max_length=64)
    size = models.BigIntegerField(_("size (bytes)"))
    modified_at = models.DateTimeField(_("file changed"))
    interpreter = models.CharField(_("interpreter"), max_length=500)
    environment = models.TextField(_("names of variables"), blank=True)  # separated by spaces, sorted; never values

    class Meta:
        verbose_name = _("program version")
        verbose_name_plural = _("program versions")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.program} {self.sha256[:12]}"

    @property
    def environment_names(self) -> list[str]:
        return self.environment.split()

    @classmethod
    def of(
        cls, *, program: str, sha256: str, size: int, modified_at: datetime, interpreter: str, environment: list[str]
    ) -> ProgramVersion:
        """The row with these values, which is made when there is none."""
        names = " ".join(sorted(environment))
        values = {"program": program, "sha256": sha256, "size": size, "modified_at": modified_at}
        values |= {"interpreter": interpreter, "environment": names}
        digest = hashlib.sha256("\0".join(map(str, values.values())).encode()).hexdigest()
        return cls.objects.get_or_create(digest=digest, defaults=values)[0]
