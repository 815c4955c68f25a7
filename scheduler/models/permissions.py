"""guardian's permission rows with a real foreign key: they go when the task goes, and a new task never gets them."""

from __future__ import annotations

from django.db import models
from guardian.models import GroupObjectPermissionBase, UserObjectPermissionBase

from .task import Task


class TaskUserObjectPermission(UserObjectPermissionBase):
    """One permission of one user on one task."""

    content_object = models.ForeignKey(Task, on_delete=models.CASCADE)

    class Meta(UserObjectPermissionBase.Meta):
        default_permissions = ()


class TaskGroupObjectPermission(GroupObjectPermissionBase):
    """One permission of one group on one task."""

    content_object = models.ForeignKey(Task, on_delete=models.CASCADE)

    class Meta(GroupObjectPermissionBase.Meta):
        default_permissions = ()
