"""Watching the runs of this host: what their folders and the kernel say, written into their rows.

Everything here may be repeated, and done by several pollers at once: rows change by conditional updates.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, UUIDField

from scheduler import outputs
from scheduler.executors import Executor, LaunchError
from scheduler.models import OutputFile, ProcessSample, Run, RunEvent
from scheduler.models.follow_up import FollowUp, after_end, lock_for_end
from scheduler.poller.each import each
from scheduler.poller.ends import Ends
from scheduler.poller.reports import ALL_BYTES, read_reports, storable
from scheduler.poller.sampling import Sampler
from scheduler.poller.versions import Versions
from scheduler.prepared import Blank, PreparedRows
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol
from scheduler.supervisor import processes
from scheduler.supervisor.folder import RunFolder, Stage, read_json
from scheduler.supervisor.supervise import end_strays

if TYPE_CHECKING:
    import uuid
    from concurrent.futures import ThreadPoolExecutor

    from django.db.models import QuerySet

logger = logging.getLogger(__name__)

# A run that is claimed and not started by this poller may still be in another poller's hands for this long.
PATIENCE_SECONDS = 2.0
SAMPLE_EVERY_SECONDS = 2.0
# Each time costs a flush of the disk, however many folders are removed.
REMOVE_EVERY_SECONDS = 5.0
MESSAGES_KEPT = 1000
SHORT = timedelta(seconds=0.2)
# A process that does not end is looked for again in the next round: the other runs do not wait for it.
STRAYS_SECONDS = 1.0
# Of the processes that a run folder names
NAMES, NAME_LENGTH = 10, 50


@dataclass(slots=True)
class _Seen:
    """What this poller remembers of a run between two looks."""

    not_started_since: float | None = None
    launches: int = 0
    next_collection: float = 0.0
    collections: int = 0
    is_followed: bool = False
    strays: int = 0
    is_held_up: bool = False


@dataclass(slots=True)
class Watcher:
    host: uuid.UUID
    executor: Executor
    ends: Ends = field(default_factory=Ends)
    sweeper: ThreadPoolExecutor | None = None
    """Who removes folders, since that waits for the disk; None: this process, at the end of each round."""
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _sampler: Sampler = field(default_factory=Sampler)
    _versions: Versions = field(default_factory=Versions)
    _next_sample: float = 0.0
    _ended: int = 0
    _ingested: dict[uuid.UUID, dict[str, Any] | None] = field(default_factory=dict)
    _next_removal: float = 0.0

    def look_at_all(self, now: datetime) -> int:
        """Look at every run of this host that is being processed; how many are so still."""
        self._ended = 0
        failures = self.executor.take_failures()
        runs = _ON_HOST.all(Run, host=self.host)
        for run in runs:
            each(run, lambda run: self._look(run, now, failures.get(run.uuid)))
        self._seen = {run.pk: self._seen[run.pk] for run in runs if run.pk in self._seen}
        if runs and time.monotonic() >= self._next_sample:
            self._sample(runs, now)
            self._next_sample = time.monotonic() + SAMPLE_EVERY_SECONDS
        return len(runs) - self._ended

    def rest(self) -> int:
        """A round without any run of this host that is being processed; 0."""
        self.executor.take_failures()
        self._seen.clear()
        return 0

    def tidy(self, *, at_once: bool = False) -> None:
        """Have the folders removed of the runs whose end was stored, many together; nobody has to wait for that."""
        if not self._ingested or (self.sweeper is not None and not at_once and time.monotonic() < self._next_removal):
            return
        ended, self._ingested = self._ingested, {}
        self._next_removal = time.monotonic() + REMOVE_EVERY_SECONDS
        if self.sweeper is None:
            _retire(ended)
        else:
            self.sweeper.submit(_retire, ended)

    def _look(self, run: Run, now: datetime, failure: str | None) -> None:
        folder = outputs.run_folder(run.uuid)
        seen = self._seen.setdefault(run.pk, _Seen())
        stage = folder.stage()
        if stage is Stage.NOT_STARTED and (run.started_at is not None or _was_removed(run, folder)):
            self._folder_gone(run, folder, seen, now)
            return
        if stage is Stage.NOT_STARTED:
            self._not_started(run, folder, seen, now, failure)
            return
        seen.not_started_since = None
        if not seen.is_followed and stage in {Stage.STARTING, Stage.RUNNING}:
            self._follow(folder, seen)
        if stage is Stage.RETIRED:
            self._ingest(run, read_json(folder.tombstone) or {}, now)
            return
        if run.started_at is None and stage is not Stage.DONE:
            self._note_start(run, folder, now)
        if run.cancel_requested_at is not None and not folder.has(protocol.STOP):
            folder.write(protocol.STOP, {"by": run.cancel_requested_by_name})
            folder.poke()
        self.take_reports(run, folder, now, until_end=stage is Stage.DONE)
        match stage:
            case Stage.DONE:
                result = folder.result()
                if result[protocol.DONE] is None:
                    # A crash of the machine has left it without its content: the files are collected once more.
                    Path(folder.file(protocol.DONE)).unlink(missing_ok=True)
                    return
                self._ingest(run, result, now)
            case Stage.DEAD:
                self._dead(run, folder, seen, now)
            case Stage.ENDED:
                self._collect(run, seen)

    # Before the start

    def launch(self, run: Run, now: datetime) -> None:
        """Launch a claimed run; one that cannot be launched is finished with the reason."""
        seen = self._seen.setdefault(run.pk, _Seen())
        seen.launches += 1
        seen.not_started_since = time.monotonic()
        try:
            self.executor.start(run)
        except LaunchError as error:
            self._fail_launch(run, str(error), now)

    def _not_started(self, run: Run, folder: RunFolder, seen: _Seen, now: datetime, failure: str | None) -> None:
        if outputs.is_out_of_room() and not self.executor.is_launching(run.uuid):
            seen.launches = 0  # nothing can be written, and so nothing was: it is launched when there is room
            return
        if run.cancel_requested_at is not None and not self.executor.is_launching(run.uuid):
            # A launch that comes late after all finds this file first, and starts nothing.
            folder.make()
            folder.write(protocol.STOP, {"by": run.cancel_requested_by_name})
        if failure is not None:
            self._fail_launch(run, failure, now)
            return
        if self.executor.is_launching(run.uuid):
            return
        if seen.not_started_since is None:
            seen.not_started_since = time.monotonic()
        if time.monotonic() - seen.not_started_since < PATIENCE_SECONDS:
            return
        if seen.launches >= 3:
            self._fail_launch(run, "no supervisor came up in three launches", now)
            return
        logger.warning("run %s: claimed and not started; launched again", run.pk)
        run.record(RunEvent.What.LAUNCHED_AGAIN, now=now)
        self.launch(run, now)

    def _fail_launch(self, run: Run, detail: str, now: datetime) -> None:
        if outputs.is_out_of_room():
            return  # that may be why: it is launched again when there is room
        folder = outputs.run_folder(run.uuid)
        try:
            folder.make()
            if not folder.forbid_start(now.timestamp(), detail):
                return  # it has been started after all
        except OSError:
            logger.exception("run %s: its folder cannot be written", run.pk)
        self._ingest(run, {protocol.EXIT: {"reason": Reason.LAUNCH_ERROR, "detail": detail}}, now)

    # While it runs

    def _note_start(self, run: Run, folder: RunFolder, now: datetime) -> None:
        started = folder.read(protocol.STARTED)
        task = folder.read(protocol.TASK)
        if started is None or task is None:
            return
        if now - _instant(started.get("at"), now) < SHORT:
            return  # the start of one that is over at once is stored with its end
        version = self._versions.of(run, folder)
        with transaction.atomic():
            noted = (
                Run.objects.processing()
                .filter(pk=run.pk, claim_token=run.claim_token, started_at=None)
                .update(**_start(started, task, now), version=version)
            )
            if noted:
                RunEvent.write(
                    RunEvent(run=run, what=what, text=text, at=now) for what, text in _start_events(run, started)
                )

    def _follow(self, folder: RunFolder, seen: _Seen) -> None:
        """Be woken by the end of its supervisor, whether it says so or not."""
        started = folder.read(protocol.STARTED) or {}
        pid, ticks = started.get("pid"), started.get("start_ticks")
        if isinstance(pid, int) and isinstance(ticks, int):
            seen.is_followed = True
            self.ends.follow(pid, ticks)

    def take_reports(self, run: Run, folder: RunFolder, now: datetime, *, until_end: bool) -> None:
        """Store the newest message and progress; with ``until_end`` all that is left to read."""
        while True:
            try:
                reports = read_reports(folder.file(protocol.REPORTS), run.reports_offset)
            except OSError:
                return  # the task has removed the file, or put something else in its place
            if reports.offset == run.reports_offset:
                return
            self._store_reports(run, reports, now)
            if not (until_end and reports.is_partial):
                return

    def _store_reports(self, run: Run, reports: Any, now: datetime) -> None:
        values: dict[str, Any] = {"reports_offset": reports.offset, **(reports.progress or {})}
        if reports.messages:
            values["message"] = reports.messages[-1]
        with transaction.atomic():
            stored = (
                Run.objects.processing()
                .filter(pk=run.pk, claim_token=run.claim_token, reports_offset=run.reports_offset)
                .update(**values)
            )
            if stored and reports.messages:
                kept = run.events.filter(what=RunEvent.What.MESSAGE).count()
                RunEvent.write(
                    RunEvent(run=run, what=RunEvent.What.MESSAGE, text=text, at=now)
                    for text in reports.messages[: max(MESSAGES_KEPT - kept, 0)]
                )
            if stored and reports.is_dropping:
                run.record(RunEvent.What.REPORTS_DROPPED, f"> {ALL_BYTES // 1024**2} MB", now=now)
        run.reports_offset = reports.offset

    def _sample(self, runs: list[Run], now: datetime) -> None:
        supervisors: dict[int, Run] = {}
        for run in runs:
            folder = outputs.run_folder(run.uuid)
            if folder.has(protocol.DONE):
                continue  # its supervisor may have another run
            started = folder.read(protocol.STARTED) or {}
            pid, ticks = started.get("pid"), started.get("start_ticks")
            if isinstance(pid, int) and isinstance(ticks, int) and processes.is_alive(pid, ticks):
                supervisors[pid] = run
        peaks = dict(
            ProcessSample.objects.filter(run__in=supervisors.values()).values_list("run_id", "memory_peak_bytes")
        )
        samples = []
        for pid, sample in self._sampler.sample(list(supervisors)).items():
            run = supervisors[pid]
            peak = max(peaks.get(run.pk, 0), sample["memory_bytes"])
            samples.append(ProcessSample(run=run, at=now, memory_peak_bytes=peak, **sample))
        # A few statements for all of them: a thousand runs would keep the database busy for seconds.
        ProcessSample.objects.bulk_create(
            samples,
            update_conflicts=True,
            unique_fields=["run"],
            update_fields=["at", "cpu_percent", "memory_bytes", "memory_peak_bytes", "processes"],
        )

    # After its end

    def _dead(self, run: Run, folder: RunFolder, seen: _Seen, now: datetime) -> None:
        """The supervisor is gone and has written no end: end what is left, then say that the run is lost."""
        started = folder.read(protocol.STARTED) or {}
        if folder.find_result():
            return  # its program's end was written down: what is left is done in the next round
        if started.get("boot_id") != processes.boot_id():
            detail = f"The machine restarted at {_boot_time()}."
        else:
            detail = "Its supervisor was killed."
            if not self._end_strays(run, folder, seen, now):
                return
        logger.warning("run %s: lost. %s", run.pk, detail)
        if folder.declare_lost(now.timestamp(), detail):
            self._collect(run, seen)

    def _end_strays(self, run: Run, folder: RunFolder, seen: _Seen, now: datetime) -> bool:
        """End what is left of it; False while something is: a run is not finished while a process of it lives."""
        spec = {**(folder.read(protocol.SPEC) or {}), "run": str(run.uuid)}
        ended, is_one_left = end_strays(folder, spec, seconds=STRAYS_SECONDS)
        seen.strays = max(seen.strays, ended)
        if is_one_left:
            if not seen.is_held_up:
                logger.warning("run %s: its supervisor is gone, and a process of it cannot be ended yet", run.pk)
            seen.is_held_up = True
            return False
        if seen.strays:
            run.record(RunEvent.What.PROCESSES_ENDED, str(seen.strays), now=now)
        return True

    def _folder_gone(self, run: Run, folder: RunFolder, seen: _Seen, now: datetime) -> None:
        """Somebody has deleted the folder of a run that was started: a second start would find nothing in its way."""
        if not self._end_strays(run, folder, seen, now):
            return
        logger.warning("run %s: lost. Its run folder is gone.", run.pk)
        self._ingest(run, {}, now)

    def _collect(self, run: Run, seen: _Seen) -> None:
        """Have the files collected that a dead supervisor left; with growing pauses, since a full disk may be why."""
        if self.executor.is_launching(run.uuid) or time.monotonic() < seen.next_collection:
            return
        if seen.collections > 0:
            log = outputs.run_folder(run.uuid).file(protocol.SUPERVISOR_LOG)
            logger.warning("run %s: its files cannot be collected yet: see %s", run.pk, log)
        seen.collections += 1
        seen.next_collection = time.monotonic() + min(2.0**seen.collections, 60.0)
        try:
            self.executor.collect(run)
        except LaunchError as error:
            logger.warning("run %s: its files cannot be collected yet: %s", run.pk, error)

    def _ingest(self, run: Run, result: dict[str, Any], now: datetime) -> None:
        """Write a run's end and its files into the database; its folder is removed a little later."""
        exited = _exit(result)
        done = result.get(protocol.DONE) or {}
        try:
            rows = outputs.rows_of_files(run, done, now)
            problems = outputs.problems_of(done)
        except (KeyError, TypeError, ValueError, ValidationError):
            # A program that runs as the scheduler's own user can write into its run folder.
            rows, problems = [], ["the list of collected files is damaged"]
        started, task = result.get(protocol.STARTED), result.get(protocol.TASK)
        status, reason = _outcome(exited)
        if reason is Reason.STOPPED_BY_USER and run.is_replaced:
            reason = Reason.REPLACED
        values: dict[str, Any] = {"finished_at": _instant(exited.get("at"), now)}
        if reached := {**_limits(exited), **_limits(done)}:
            values["limits_reached"] = reached
        events = [*_findings(done), *((RunEvent.What.NOT_COLLECTED, problem) for problem in problems)]
        if run.started_at is None and task and started:
            values |= {**_start(started, task, now), "version": self._versions.of(run, outputs.run_folder(run.uuid))}
            events = [*_start_events(run, started), *events]
        with transaction.atomic():
            if status is Status.FAILED:  # other ends write nothing about their own task and schedule
                lock_for_end(run)
            moved = Run.objects.transition(
                run.pk,
                to=status,
                token=run.claim_token,
                reason=reason,
                detail=storable(str(exited.get("detail", ""))),
                exit_code=_number(exited.get("exit_code"), 256),
                signal=_number(exited.get("signal"), 128),
                **values,
            )
            if moved:
                if rows:
                    OutputFile.objects.bulk_create(rows, ignore_conflicts=True)
                events.append((RunEvent.What.FINISHED, reason))
                RunEvent.write(RunEvent(run=run, what=what, text=storable(text), at=now) for what, text in events)
                if status is Status.FAILED or vars(run).get("has_follow_ups", True):
                    after_end(run.pk, now)
        self._ingested[run.uuid] = result
        self._ended += 1


def _was_removed(run: Run, folder: RunFolder) -> bool:
    """Whether a run has no folder although a supervisor was there: it has made the log, in another place."""
    return not folder.exists() and outputs.log_path(run).exists()


def _retire(ended: dict[uuid.UUID, dict[str, Any] | None]) -> None:
    try:
        outputs.retire(ended)
    except OSError:
        logger.exception("%d run folders: not removed; the next start of a poller tries it again", len(ended))


def _on_host() -> QuerySet[Run]:
    follow_ups = FollowUp.objects.filter(task=OuterRef("task"))
    host: Any = Blank("host", UUIDField())
    return Run.objects.processing_on(host).select_related("task").annotate(has_follow_ups=Exists(follow_ups))


_ON_HOST = PreparedRows(_on_host)


def _boot_time() -> str:
    return f"{datetime.fromtimestamp(processes.boot_time(), UTC):%Y-%m-%d %H:%M:%S} UTC"


def _start(started: dict[str, Any], task: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {"started_at": _instant(started.get("at"), now), "pid": _number(task.get("pid"), 2**22)}


def _start_events(run: Run, started: dict[str, Any]) -> list[tuple[RunEvent.What, str]]:
    events = [(RunEvent.What.STARTED, "")]
    if started.get("claim_token") != run.claim_token:
        events.append((RunEvent.What.RECOVERED, ""))
    return events


def _exit(result: dict[str, Any]) -> dict[str, Any]:
    """How the program ended; a run whose folder, or exit.json, says nothing of it is lost."""
    if protocol.EXIT not in result:
        return {"reason": Reason.LOST, "detail": "Its run folder is gone."}
    exited: dict[str, Any] = result[protocol.EXIT] or {}
    if exited.get("reason") in Reason.values:
        return exited
    return {**exited, "reason": Reason.LOST, "detail": "The file that says how it ended is damaged."}


def _outcome(exited: dict[str, Any]) -> tuple[Status, Reason]:
    reason = Reason(exited["reason"])
    if reason is Reason.STOPPED_BY_USER:
        return Status.CANCELLED, reason
    if reason is Reason.EXIT_CODE and exited.get("exit_code") == 0:
        return Status.COMPLETED, reason
    return Status.FAILED, reason


LIMITS = ("memory_bytes", "cpu_seconds", "processes", "log_bytes", "output_bytes", "output_files")


def _limits(found: dict[str, Any]) -> dict[str, int]:
    """What a file of the run folder says of reached limits; what makes no sense is left out."""
    given = found.get("limits")
    if not isinstance(given, dict):
        return {}
    return {name: number for name in LIMITS if (number := _number(given.get(name), 2**63)) is not None}


def _findings(done: dict[str, Any]) -> list[tuple[RunEvent.What, str]]:
    """What the supervisor has found out beside the result, as events."""
    found = []
    for name, what in (("left", RunEvent.What.PROCESSES_ENDED), ("killed", RunEvent.What.PROCESSES_KILLED)):
        if isinstance(names := done.get(name), list):
            found.append((what, ", ".join(str(each)[:NAME_LENGTH] for each in names[:NAMES])))
    if isinstance(cleanup := done.get("cleanup"), dict):
        found.append((RunEvent.What.CLEANED_UP, _cleanup_in_words(cleanup)))
    if isinstance(problem := done.get("not_limited"), str):
        found.append((RunEvent.What.NOT_LIMITED, problem))
    return found


def _cleanup_in_words(cleanup: dict[str, Any]) -> str:
    match cleanup.get("reason"):
        case None:
            return "nobody saw its end"
        case "exit_code":
            return f"exit code {cleanup.get('exit_code')}"
        case "signal":
            return f"signal {cleanup.get('signal')}"
        case "launch_error":
            return str(cleanup.get("detail"))
        case reason:
            return str(reason).replace("_", " ")


def _number(value: object, limit: int) -> int | None:
    return value if isinstance(value, int) and 0 <= value < limit else None


def _instant(seconds: object, default: datetime) -> datetime:
    """A supervisor's wall time; a value that makes no sense is replaced, never an error."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return default
