"""The poller's loop: report, look what there is to do, mend, decide, watch, claim, sleep."""

from __future__ import annotations

import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connection
from django.utils import timezone

import scheduler
from scheduler import outputs
from scheduler.conf import scheduler_settings
from scheduler.models import Poller, Run, Schedule, StoreRemoval, decide_together
from scheduler.poller import session
from scheduler.poller.agenda import Agenda, look
from scheduler.poller.alarms import Alarms
from scheduler.poller.archives import Archiver
from scheduler.poller.each import each, in_turn
from scheduler.poller.host import Host, this_host
from scheduler.poller.notifications import Notifications
from scheduler.poller.notify import notify
from scheduler.poller.program_forms import Asker
from scheduler.poller.schema import Schema, is_about_tables
from scheduler.poller.waker import Waker, remove_abandoned_sockets
from scheduler.poller.watch import Watcher
from scheduler.sqlite_lock import writer
from scheduler.supervisor import processes

if TYPE_CHECKING:
    from types import FrameType

    from scheduler.executors import Executor


logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
BUSY_SECONDS = 0.5  # messages and progress appear by then; ends wake the poller
REPORT_EVERY = timedelta(seconds=5)
BATCH = 200
# What takes a transaction a row is left to the next round after this time: what is ready starts in between.
STEP_SECONDS = 0.5
CLAIMS_AT_ONCE = 16  # the first of them waits for the last before it is launched
# Each launch that is under way has a descriptor and a place in the warm process's queue; beyond that, starts are cold.
LAUNCHES_AT_ONCE = 32
HELD_BACK_SECONDS = 0.02
STOPPING_SECONDS = 30  # as TimeoutStopSec= of the unit in deploy/systemd
KEEP_ENDED_POLLERS = timedelta(days=7)


class PollerDaemon:
    """One poller. ``run()`` is the loop, ``tick(now)`` one round; both may go on beside other pollers."""

    def __init__(self, executor: Executor, *, host: Host | None = None, drains: bool = False) -> None:
        outputs.make_root()
        self.host = host or this_host()
        self.executor = executor
        self.watcher = Watcher(self.host.id, executor)
        self.archiver = Archiver(self.host.id)
        self.asker = Asker()
        self.alarms = Alarms()
        self.capacity = scheduler_settings().capacity
        self.busy = self.capacity
        """How many runs of this host were under way at the last look; before the first one there may be no place."""
        self.row = self._new_row()
        self.notifications = Notifications()
        self.agenda = Agenda()
        self.decided = 0
        self.is_held_back = False
        """Whether more might start if fewer launches were under way."""
        self.schema = Schema()
        self.trouble = ""
        """What keeps it from working, as it was said last; empty when nothing does."""
        self.drains = drains
        self.stopping = 0
        """How often it was asked to end."""
        self.has_said_that_it_drains = False
        self.renewing = False

    def run(self) -> None:
        """Poll until a TERM or INT signal; running tasks go on, and the next poller finds them.

        One that drains starts nothing any more after the first signal, and ends when its host has no run in progress or
        at the second signal.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._renew)
        session.keep_short()
        with ThreadPoolExecutor(1) as sweeper, Waker(self.row.pk, [self.watcher.ends, self.notifications]) as waker:
            self.watcher.sweeper = sweeper
            logger.info(
                "poller %s on %s, pid %s: up, capacity %s", self.row.pk, self.host.name, os.getpid(), self.capacity
            )
            notify("READY=1")
            while not self._is_over():
                pause = self._round()
                notify("WATCHDOG=1")  # the database being gone is no reason to be restarted
                if self.stopping and not self._is_over():
                    self._say_that_it_drains()
                waker.wait(pause)
            self.watcher.tidy(at_once=True)
        notify("STOPPING=1")
        self.notifications.close()
        self.executor.close()
        self._say_goodbye()

    def _round(self) -> float:
        """One round, whatever happens in it; how long to sleep after it."""
        try:
            missing = self.schema.missing()
            if missing:
                self._say(f"waiting: {missing}")
                return IDLE_SECONDS
            self._keep_warm()
            self.notifications.listen()
            pause = self._pause(self.tick(timezone.now()))
            self._say("")
            return pause
        except Exception as error:
            if is_about_tables(error):
                self._say("the tables are not those of this version", error)
                self.schema.look_again()
            elif isinstance(error, OperationalError | InterfaceError):
                self._say("the database does not answer", error)
            elif isinstance(error, OSError):
                self._say("this machine refuses what a round needs", error)  # such as a folder whose disk is gone
            else:
                # Runs are in its hands: it says what is wrong and goes on, as the next round may be better.
                logger.exception("this round failed; the next one follows")
                return IDLE_SECONDS
            _drop_connection()
            return IDLE_SECONDS

    def _say(self, trouble: str, error: Exception | None = None) -> None:
        """Say once what keeps it from working, and when it works again."""
        if trouble == self.trouble:
            return
        self.trouble = trouble
        notify(f"STATUS={trouble}")
        if error is not None:
            logger.warning("%s (%s); trying again every second", trouble, _said(error))
        elif trouble:
            logger.warning("%s", trouble)
        else:
            logger.info("going on")

    def tick(self, now: datetime) -> int:
        """One round; how many runs, archives and questions of this host are under way after it."""
        # What is ready starts first: it is what somebody waits for, and the rest of the round takes longer.
        self._look_for_room()
        self._claim(now)
        known_busy = self.busy
        self._report(now)
        self.agenda = agenda = look(self.row.pk, self.host.id, now)
        if agenda.stale or agenda.broken:
            self._mend(now)
        self.decided = self._decide(now) if agenda.due else 0
        self.busy = self.watcher.look_at_all(now) if agenda.processing else self.watcher.rest()
        if self.decided or self.busy < known_busy:
            self._claim(now)
        self.watcher.tidy()
        if agenda.removals:
            self._remove_deleted()
        self.alarms.look(now, host=self.host.id if agenda.processing else None)
        asked = self.asker.look(now) if agenda.questions else self.asker.rest()
        return self.busy + asked + (self.archiver.look(now) if agenda.archives else self.archiver.rest())

    # One step each

    def _look_for_room(self) -> None:
        """Start nothing on a disk that is nearly full: a run that cannot write its log and its files helps nobody."""
        self.row.free_bytes = free = outputs.free_bytes()
        is_out_of_room = free < scheduler_settings().free_bytes
        if is_out_of_room == self.row.is_out_of_room:
            return
        self.row.is_out_of_room = is_out_of_room
        if is_out_of_room:
            logger.warning(
                "the disk is nearly full (%d MB are free): no run is started until there is room", free >> 20
            )
        else:
            logger.info("there is room on the disk again")
        Poller.objects.filter(pk=self.row.pk).update(free_bytes=free, is_out_of_room=is_out_of_room)

    def _report(self, now: datetime) -> None:
        """Say in the poller's row that it is up; now and then look after what dead pollers left."""
        if timedelta(0) <= now - self.row.seen_at < REPORT_EVERY:
            return
        for other in Poller.objects.filter(host=self.host.id, ended_at=None).exclude(pk=self.row.pk):
            if other.boot_id != self.row.boot_id or not processes.is_alive(other.pid, other.start_ticks):
                Poller.objects.filter(pk=other.pk).update(ended_at=now)
        Poller.objects.filter(ended_at__lt=now - KEEP_ENDED_POLLERS).delete()
        self.row.seen_at = now
        if not Poller.objects.filter(pk=self.row.pk).update(seen_at=now, ended_at=None, free_bytes=self.row.free_bytes):
            self.row.started_at = self.row.started_at or now
            self.row.save(force_insert=True)  # the first report, or the row is gone (an older database was restored)
            self._tidy()

    def _tidy(self) -> None:
        """Remove what pollers left that were killed: sockets, and the folders of runs that were ingested already."""
        remove_abandoned_sockets()
        found = outputs.run_uuids_with_folders()
        ended = [run_uuid for run_uuid in found if Run.objects.finished().filter(uuid=run_uuid).exists()]
        outputs.retire(dict.fromkeys(ended))

    def _mend(self, now: datetime) -> None:
        """Put the next slot of schedules into the queue that have lost it, or whose rule has changed."""
        in_turn(Schedule.objects.stale().order_by("pk")[:BATCH], lambda schedule: schedule.plan(now), STEP_SECONDS)
        in_turn(Schedule.objects.broken().order_by("pk")[:BATCH], lambda schedule: schedule.mend(now), STEP_SECONDS)

    def _decide(self, now: datetime) -> int:
        """Decide due slots; how many were."""
        due = list(Run.objects.due(now)[:BATCH])
        try:
            decided, left = decide_together(due, now) if len(due) > 1 else (0, due)
        except OperationalError as error:
            if not session.is_locked_row(error):
                raise
            decided, left = 0, due
        return decided + in_turn(left, lambda run: run.decide(now), STEP_SECONDS)

    def _claim(self, now: datetime) -> None:
        """Claim ready runs, as many as there are places here, and launch them."""
        self.is_held_back = False
        if self.row.is_out_of_room or self.stopping:
            return
        places = self.capacity - self.busy
        room = min(places, LAUNCHES_AT_ONCE - self.executor.launches())
        # A few more than there are places: another poller may be faster.
        candidates = Run.objects.next_startable(now, room * 2)
        self.is_held_back = room < places and len(candidates) > room
        while candidates and room > 0:
            count = min(room, CLAIMS_AT_ONCE)
            batch, candidates = candidates[:count], candidates[count:]
            claimed = self._claim_together(batch, now)
            self.busy += len(claimed)  # at once: they count also when the rest of the round fails
            room -= len(claimed)
            for run in claimed:
                each(run, lambda run: self.watcher.launch(run, now))

    def _claim_together(self, runs: list[Run], now: datetime) -> list[Run]:
        host, host_name = self.host.id, self.host.name
        try:
            return Run.objects.claim(runs, host=host, host_name=host_name, now=now)
        except (OperationalError, InterfaceError) as error:
            if not session.is_locked_row(error):
                raise
        except Exception as error:
            if is_about_tables(error):
                raise
            logger.exception("%d runs could not be claimed together; one by one they are", len(runs))
        return [run for run in runs if each(run, lambda run: run.claim(host=host, host_name=host_name, now=now))]

    def _remove_deleted(self) -> None:
        in_turn(StoreRemoval.objects.filter(host=self.host.id)[:BATCH], _remove, STEP_SECONDS)

    # Around the loop

    def _new_row(self) -> Poller:
        me = processes.look_at(os.getpid())
        assert me is not None
        return Poller(
            host=self.host.id,
            host_name=self.host.name,
            pid=me.pid,
            boot_id=processes.boot_id(),
            start_ticks=me.start_ticks,
            version=scheduler.__version__,
            capacity=self.capacity,
            limits_problem=self.executor.limits_problem,
            seen_at=datetime.min.replace(tzinfo=UTC),
        )

    def _pause(self, busy: int) -> float:
        """How long to sleep: until the next run is due, but not for longer than a round may take."""
        if self.decided:
            return 0.0  # the next round shows when the slots are due that have come into the queue
        if self.is_held_back:
            return HELD_BACK_SECONDS
        # Slots that are due and were not decided are in somebody's hands, or bad rows.
        longest = BUSY_SECONDS if busy or self.agenda.due else IDLE_SECONDS
        if self.agenda.next_due_at is None:
            return longest
        left = (self.agenda.next_due_at - timezone.now()).total_seconds()
        return min(longest, max(left, 0.01))

    def _keep_warm(self) -> None:
        if self.renewing:
            self.renewing = False
            self.executor.renew()
        self.executor.prepare()
        if self.executor.cold_reason != self.row.cold_reason:
            self.row.cold_reason = self.executor.cold_reason
            Poller.objects.filter(pk=self.row.pk).update(cold_reason=self.row.cold_reason)
            if self.row.cold_reason:
                logger.warning("starts are cold: %s", self.row.cold_reason)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopping += 1

    def _renew(self, number: int, _frame: FrameType | None) -> None:
        self.renewing = True

    def _is_over(self) -> bool:
        return self.stopping > 1 or (self.stopping == 1 and not (self.drains and self.busy))

    def _say_that_it_drains(self) -> None:
        notify(f"EXTEND_TIMEOUT_USEC={STOPPING_SECONDS * 1_000_000}")
        if not self.has_said_that_it_drains:
            logger.info("it starts nothing more, and waits for what runs here (%d); a second TERM ends it", self.busy)
            self.has_said_that_it_drains = True

    def _say_goodbye(self) -> None:
        logger.info("poller %s: ended; running tasks go on", self.row.pk)
        try:
            Poller.objects.filter(pk=self.row.pk).update(ended_at=timezone.now())
        except (DatabaseError, InterfaceError):
            pass  # the next poller of this host sees that this process is gone


def _remove(removal: StoreRemoval) -> bool:
    if outputs.remove(removal.uuid):
        removal.delete()
    return True


def _said(error: Exception) -> str:
    """What the database said, and on SQLite who keeps everybody waiting."""
    holder = writer(str(connection.settings_dict["NAME"])) if connection.vendor == "sqlite" else None
    text = " ".join(str(error).split())
    return f"{text}: {holder}" if holder is not None else text


def _drop_connection() -> None:
    """Let the next round connect anew; a connection inside a broken transaction cannot be kept."""
    try:
        connection.close()
    except (DatabaseError, InterfaceError):
        pass
    close_old_connections()
