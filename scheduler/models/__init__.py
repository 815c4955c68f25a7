"""The rows of the scheduler, with their verbs and the words for sets of them."""

from .alarm import Alarm
from .audit import AuditEntry
from .calendar import Calendar
from .deciding import decide_together
from .follow_up import FollowUp
from .group import ConcurrencyGroup
from .outputfile import Archive, OutputFile
from .pause import SchedulerState
from .permissions import TaskGroupObjectPermission, TaskUserObjectPermission
from .poller import Poller
from .program_form import ProgramForm
from .program_version import ProgramVersion
from .recurrence import Recurrence
from .run import ProcessSample, Run, RunEvent, StoreRemoval
from .schedule import Schedule
from .task import Task

__all__ = [
    "Alarm",
    "Archive",
    "AuditEntry",
    "Calendar",
    "ConcurrencyGroup",
    "FollowUp",
    "OutputFile",
    "Poller",
    "ProcessSample",
    "ProgramForm",
    "ProgramVersion",
    "Recurrence",
    "Run",
    "RunEvent",
    "Schedule",
    "SchedulerState",
    "StoreRemoval",
    "Task",
    "TaskGroupObjectPermission",
    "TaskUserObjectPermission",
    "decide_together",
]
