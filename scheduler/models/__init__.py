"""The rows of the scheduler, with their verbs and the words for sets of them."""

from .audit import AuditEntry
from .deciding import decide_together
from .outputfile import Archive, OutputFile
from .permissions import TaskGroupObjectPermission, TaskUserObjectPermission
from .poller import Poller
from .recurrence import Recurrence
from .run import ProcessSample, Run, RunEvent, StoreRemoval
from .schedule import Schedule
from .task import Task

__all__ = [
    "Archive",
    "AuditEntry",
    "OutputFile",
    "Poller",
    "ProcessSample",
    "Recurrence",
    "Run",
    "RunEvent",
    "Schedule",
    "StoreRemoval",
    "Task",
    "TaskGroupObjectPermission",
    "TaskUserObjectPermission",
    "decide_together",
]
