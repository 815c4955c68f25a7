"""A crontab becomes tasks and schedules; each of its lines is accounted for."""

from __future__ import annotations

import io
import os
import pwd
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler import crontabs, recurrences
from scheduler.crontab_import import Kind, Outcome, arguments_of, import_crontab
from scheduler.models import Recurrence, Run, Schedule, Task
from tests.simulated_run import SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from pytest_django.fixtures import Settings

PROJECT = Path(__file__).resolve().parent.parent
NOW = datetime(2026, 11, 24, 10, 5, 17, tzinfo=UTC)
ME = pwd.getpwuid(os.geteuid()).pw_name

CRONTAB = r"""# m h  dom mon dow   command
MAILTO=ops@example.org
PATH=/usr/local/bin:/usr/bin:/bin

# Copies the database.
# Ask Anna.
30 2 * * mon-fri  /usr/local/bin/backup --all
#15 4 * * * switched-off

@daily	rotate-logs
CRON_TZ = America/New_York
0,30 9-17/2 * jan-mar 1-5 report --day "$(date +\%F)"
@reboot start-daemon
0 0 31 2 * never
"""


def entries(text: str | bytes, **options: bool) -> list[crontabs.Entry]:
    return [line for line in read(text, **options) if isinstance(line, crontabs.Entry)]


def read(text: str | bytes, **options: bool) -> list[crontabs.Line]:
    return crontabs.read(text.encode() if isinstance(text, str) else text, **options)


def only(text: str | bytes, **options: bool) -> crontabs.Line:
    (line,) = read(text, **options)
    return line


def take(text: str, **options: Any) -> list[Outcome]:
    options = {"now": NOW, "default_zone": "Europe/Amsterdam", "own_user": ME, **options}
    return import_crontab(text.encode(), **options)


def kinds(outcomes: list[Outcome]) -> list[Kind]:
    return [outcome.kind for outcome in outcomes]


# Reading


def test_a_crontab_is_read_line_by_line():
    lines = read(CRONTAB)
    assert [(line.number, type(line).__name__) for line in lines] == [
        (2, "Setting"),
        (3, "Setting"),
        (7, "Entry"),
        (10, "Entry"),
        (11, "Setting"),
        (12, "Entry"),
        (13, "Refused"),
        (14, "Refused"),
    ]
    backup, rotate, report = entries(CRONTAB)
    assert (backup.rule, backup.command, backup.description) == (
        "30 2 * * mon-fri",
        "/usr/local/bin/backup --all",
        "Copies the database.\nAsk Anna.",
    )
    assert (rotate.rule, rotate.command, rotate.description, rotate.zone) == ("@daily", "rotate-logs", "", "")
    assert (report.rule, report.zone) == ("0,30 9-17/2 * jan-mar 1-5", "America/New_York")
    assert report.command == 'report --day "$(date +%F)"'
    assert report.variables == (("PATH", "/usr/local/bin:/usr/bin:/bin"),)


@pytest.mark.parametrize(
    ("line", "command", "stdin"),
    [
        ("* * * * * date", "date", None),
        ("* * * * * date  +x  y ", "date  +x  y", None),
        (r"* * * * * date +\%F", "date +%F", None),
        ("* * * * * cat%Hello%world", "cat", "Hello\nworld\n"),
        (r"* * * * * cat%100\%%end", "cat", "100%\nend\n"),
        ("* * * * * cat%one%", "cat", "one\n"),
        ("* * * * * cat%", "cat", ""),
        ("* * * * * cat%%", "cat", "\n"),
        (r"* * * * * echo a\\b", r"echo a\\b", None),
        ("* * * * * echo # no comment", "echo # no comment", None),
        ("\t *\t*  * *\t*\tdate", "date", None),
        ("* * * * * date\r", "date", None),
        ("@hourly date", "date", None),
        ("* * * * * echo A=b", "echo A=b", None),
        ("* * * * * A=b env", "A=b env", None),
    ],
)
def test_a_command_is_what_cron_makes_of_it(line: str, command: str, stdin: str | None):
    (entry,) = entries(line)
    assert (entry.command, entry.stdin) == (command, stdin)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("@reboot daemon", "start of the machine"),
        ("@REBOOT daemon", "start of the machine"),
        ("@every5m daemon", "There is no “@every5m” here"),
        ("* * * * *", "no command"),
        ("@daily", "no command"),
        ("* * * * * %input", "no command before the “%”"),
        ("* * * *", "five fields"),
        ("60 * * * * date", "“60” is no minute"),
        ("0 0 31 2 * date", "never matches"),
        ("0~30 * * * * date", "is no minute"),
        ("what is this", "five fields"),
        ("* * * * * " + "x" * crontabs.LONGEST_LINE, "more than 10000 characters"),
        ("* * * * * a\0b", "NUL"),
        ("RANDOM_DELAY=30", "RANDOM_DELAY is not known"),
        ("CRON_TZ=Europe/Nowhere", "no time zone “Europe/Nowhere”"),
        (b"* * * * * caf\xe9", "not UTF-8"),
    ],
)
def test_what_cannot_be_taken_has_a_reason(line: str | bytes, says: str):
    refused = only(line)
    assert isinstance(refused, crontabs.Refused)
    assert says in refused.reason
    assert refused.reason.endswith(".")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("GREETING=hello", "GREETING", "hello"),
        ("  GREETING =  hello world  ", "GREETING", "hello world"),
        ('GREETING="  hello "', "GREETING", "  hello "),
        ("GREETING='it''", "GREETING", "it'"),
        ('"GREETING"=hello', "GREETING", "hello"),
        ("GREETING=", "GREETING", ""),
        ("GREETING=\"hello'", "GREETING", "\"hello'"),
        ("GREETING=$HOME/x # y", "GREETING", "$HOME/x # y"),
    ],
)
def test_environment_lines_are_read_as_cron_does(line: str, name: str, value: str):
    (entry,) = entries(f"{line}\n* * * * * date")
    assert entry.variables == ((name, value),)


def test_environment_lines_count_for_the_lines_below_only():
    first, second, third = entries("* * * * * a\nX=1\nSHELL=/bin/bash\n* * * * * b\nX=2\nY=3\n* * * * * c\n")
    assert (first.variables, first.shell) == ((), "/bin/sh")
    assert (second.variables, second.shell) == ((("X", "1"),), "/bin/bash")
    assert third.variables == (("X", "2"), ("Y", "3"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("MAILTO=", "the log of its run"),
        ("MAILTO=anna", "the log of its run"),
        ("SHELL=/bin/bash", "read by /bin/bash"),
        ("PATH=/bin", "get it"),
        ("HOME=/srv", "start in that folder"),
        ("TZ=Asia/Tokyo", "not read in it"),
        ("CRON_TZ=Asia/Tokyo", "read in Asia/Tokyo"),
        ("LOGNAME=anna", "not used"),
        ("DB_PASSWORD=hunter2", "looks like a secret"),
        ("DATABASE_URL=postgres://anna:hunter2@db/x", "looks like a secret"),
    ],
)
def test_of_each_environment_line_is_said_what_becomes_of_it(line: str, says: str):
    setting = only(line)
    assert isinstance(setting, crontabs.Setting)
    assert says in setting.becomes
    assert "hunter2" not in setting.becomes


def test_an_unknown_zone_refuses_the_lines_below_until_the_next_one():
    lines = read("CRON_TZ=Nowhere\n* * * * * a\nCRON_TZ=UTC\n* * * * * b\nCRON_TZ=\n* * * * * c\n")
    assert [type(line).__name__ for line in lines] == ["Refused", "Refused", "Setting", "Entry", "Setting", "Entry"]
    assert isinstance(lines[1], crontabs.Refused)
    assert "“Nowhere”" in lines[1].reason
    assert [entry.zone for entry in entries("CRON_TZ=UTC\n* * * * * b\nCRON_TZ=\n* * * * * c")] == ["UTC", ""]


@pytest.mark.parametrize(
    ("above", "description"),
    [
        ("# Backup\n", "Backup"),
        ("## Backup ##\n", "Backup"),
        ("# Backup\n\n", ""),
        ("# Backup\nX=1\n", ""),
        ("# Backup\n#0 5 * * * old\n", "Backup"),
        ("#MAILTO=x\n# -----\n# m h dom mon dow command\n", ""),
        ("# one\n#\n# two\n", "one\ntwo"),
    ],
)
def test_the_comment_right_above_describes(above: str, description: str):
    (entry,) = entries(f"{above}* * * * * date")
    assert entry.description == description


def test_a_file_from_windows_is_read_as_any_other():
    text = "\ufeff# Backup\r\nX=1\r\n0 5 * * *\tbackup\r\n".replace("X=1\r\n", "")
    (entry,) = entries(text)
    assert (entry.rule, entry.command, entry.description) == ("0 5 * * *", "backup", "Backup")


def test_a_system_crontab_has_users():
    lines = "17 * * * * root cd / && run-parts\n@daily anna  backup%x\n5 5 * * * root\n"
    assert [(entry.user, entry.command) for entry in entries(lines, user_column=True)] == [
        ("root", "cd / && run-parts"),
        ("anna", "backup"),
    ]
    assert isinstance(read(lines, user_column=True)[2], crontabs.Refused)


@given(st.binary(max_size=200) | st.text(alphabet="*/,-%\\ \t\r\n@#=\"'ab019\0", max_size=200).map(str.encode))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_file_is_read_and_no_line_counts_twice(data: bytes):
    lines = crontabs.read(data) + crontabs.read(data, user_column=True)
    for found in (crontabs.read(data), crontabs.read(data, user_column=True)):
        numbers = [line.number for line in found]
        assert numbers == sorted(set(numbers))
    for line in lines:
        if isinstance(line, crontabs.Entry):
            assert recurrences.Cron(line.rule)
            assert all("\0" not in argument for argument in arguments_of(line))


# What is run


@pytest.fixture
def simulated(tmp_path: Path) -> SimulatedRun:
    return SimulatedRun(tmp_path / "run")


def output(text: str, tmp_path: Path, **environment: str) -> str:
    """What the command of a crontab's only line prints, run by its task's arguments."""
    (entry,) = entries(text)
    arguments = arguments_of(entry)
    argv = arguments[arguments.index("--") + 1 :]
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **environment}
    return subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_command_runs_as_under_cron(tmp_path: Path):
    assert output("* * * * * pwd; echo '100\\%'", tmp_path) == f"{tmp_path / 'home'}\n100%\n"
    assert output("X='a b'\n* * * * * echo \"$X\"", tmp_path) == "a b\n"
    assert output("SHELL=/bin/bash\n* * * * * echo $0 ${BASH_VERSION:+yes}", tmp_path) == "/bin/bash yes\n"
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert output(f"HOME={folder}\n* * * * * pwd", tmp_path) == f"{folder}\n"


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("cat%Hello%100\\%", "Hello\n100%\n"),
        ("cat; echo done%", "done\n"),
        ("read a; read b; echo \"$b $a\"; pwd | sed 's|.*/||'%x y%z", "z x y\nhome\n"),
        ("echo unread%" + "x" * 5000, "unread\n"),
    ],
)
def test_a_command_reads_what_comes_after_the_percent_sign(line: str, printed: str, tmp_path: Path):
    assert output(f"* * * * * {line}", tmp_path) == printed


def test_run_command_takes_the_arguments_as_they_are_made(simulated: SimulatedRun):
    line = "GREETING='a b'\nAPI_KEY=hunter2\n* * * * * cat; echo \"$GREETING $API_KEY\"; exit 3%-h --"
    (entry,) = entries(line)
    simulated.environment = {"API_KEY": "from the environment", "HOME": str(simulated.folder)}
    result = simulated.execute(PROJECT / "sample_tasks" / "run_command.py", *arguments_of(entry))
    assert (result.code, result.log) == (3, "-h --\na b from the environment\n")


def test_the_exit_code_is_the_commands_own():
    for line in ("exit 7", "exit 7%input"):
        (entry,) = entries(f"* * * * * {line}")
        argv = arguments_of(entry)[1:]
        assert subprocess.run(argv, env={"HOME": "/"}).returncode == 7


def test_the_value_of_a_secret_is_in_no_argument():
    (entry,) = entries("API_TOKEN=hunter2\nX=1\n* * * * * call")
    assert arguments_of(entry) == [
        "--env",
        "API_TOKEN",
        "--",
        "/usr/bin/env",
        "X=1",
        "/bin/sh",
        "-c",
        "cd || exit; call",
    ]


# Importing


@pytest.mark.django_db
def test_lines_become_tasks_with_schedules_whose_next_slots_are_queued(owner: User):
    outcomes = take(CRONTAB, owner=owner)
    assert kinds(outcomes) == [
        Kind.SETTING,
        Kind.SETTING,
        Kind.TAKEN,
        Kind.TAKEN,
        Kind.SETTING,
        Kind.TAKEN,
        Kind.REFUSED,
        Kind.REFUSED,
    ]
    task = Task.objects.get(name="/usr/local/bin/backup --all")
    assert task.program == "sample_tasks/run_command.py"
    assert (task.owner, task.environment, task.enabled) == (owner, Task.Environment.PLAIN, True)
    assert task.description == (
        "Copies the database.\nAsk Anna.\n\ncrontab [Europe/Amsterdam]: 30 2 * * mon-fri /usr/local/bin/backup --all"
    )
    assert task.arguments[-3:] == ["/bin/sh", "-c", "cd || exit; /usr/local/bin/backup --all"]
    schedule = task.schedules.get()
    assert (schedule.time_zone, schedule.enabled, schedule.problem) == ("Europe/Amsterdam", True, "")
    assert schedule.recurrence.name == "every weekday at 02:30"
    assert schedule.next_run is not None
    assert schedule.next_run.slot_at == datetime(2026, 11, 25, 1, 30, tzinfo=UTC)
    assert Schedule.objects.get(time_zone="America/New_York").next_run is not None
    assert Task.objects.count() == Schedule.objects.count() == Run.objects.undecided().count() == 3


@pytest.mark.django_db
def test_a_second_import_takes_nothing_twice():
    take(CRONTAB)
    before = list(Task.objects.order_by("pk").values()), list(Schedule.objects.order_by("pk").values())
    again = kinds(take(CRONTAB))
    assert again.count(Kind.KNOWN) == 3
    assert Kind.TAKEN not in again
    assert (list(Task.objects.order_by("pk").values()), list(Schedule.objects.order_by("pk").values())) == before
    assert kinds(take("@hourly another\n" + CRONTAB)).count(Kind.TAKEN) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["name", "arguments", "rule", "description"])
def test_a_line_is_known_again_after_its_task_was_edited(change: str):
    take("30 2 * * * backup")
    task, schedule = Task.objects.get(), Schedule.objects.get()
    match change:
        case "name":
            task.name = "Backup"
        case "arguments":
            task.arguments = ["--", "backup", "--fast"]
        case "description":
            task.description = "Ours."
        case "rule":
            schedule.recurrence = Recurrence.objects.create(name="At three", kind="cron", cron="0 3 * * *")
            schedule.save()
    task.save()
    assert kinds(take("30 2 * * * backup")) == [Kind.KNOWN]
    assert Schedule.objects.count() == 1


@pytest.mark.django_db
def test_the_same_command_at_other_times_is_one_task_with_two_schedules():
    assert kinds(take("0 8 * * 1-5 report\n0 10 * * sat,sun report\n0 8 * * 1-5 report")) == [
        Kind.TAKEN,
        Kind.TAKEN,
        Kind.KNOWN,
    ]
    assert Task.objects.get().schedules.count() == 2
    assert kinds(take("0 8 * * 1-5 report\n0 10 * * sat,sun report")) == [Kind.KNOWN, Kind.KNOWN]


@pytest.mark.django_db
def test_the_same_line_in_another_zone_or_environment_is_another():
    text = "0 8 * * * report\nCRON_TZ=UTC\n0 8 * * * report\nX=1\n0 8 * * * report"
    assert kinds(take(text)).count(Kind.TAKEN) == 3
    assert sorted(Task.objects.values_list("name", flat=True)) == ["report", "report (2)"]
    assert kinds(take(text)).count(Kind.KNOWN) == 3


@pytest.mark.django_db
def test_a_recurrence_that_is_there_is_used(owner: User):
    mine = Recurrence.objects.create(name="At night", kind="cron", cron="0 2 * * *")
    Recurrence.objects.create(name="every day at 03:00", kind="every", every=1, unit="days")
    take("0 2 * * * a\n0   2 * * * b\n0 3 * * * c\n0 3 * * * d")
    assert mine.schedules.count() == 2
    assert Recurrence.objects.get(cron="0 3 * * *").name == "every day at 03:00 (2)"


@pytest.mark.django_db
def test_a_dry_run_says_the_same_and_writes_nothing():
    said = take(CRONTAB, dry_run=True)
    for model in (Task, Schedule, Recurrence, Run):
        assert not model._default_manager.exists()
    assert said == take(CRONTAB)


@pytest.mark.django_db
def test_an_error_in_the_middle_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    def fail(schedule: Schedule, now: datetime) -> None:
        if schedule.task.name == "b":
            raise RuntimeError("the database went away")

    monkeypatch.setattr(Schedule, "plan", fail)
    with pytest.raises(RuntimeError):
        take("@daily a\n@daily b")
    assert not Task.objects.exists()


@pytest.mark.django_db
def test_long_and_odd_commands_have_names_of_one_line():
    take(f"@daily {'x' * 300}\n@daily {'x' * 301}\n@daily echo \x1b[31m\u202ered\n")
    names = list(Task.objects.order_by("pk").values_list("name", flat=True))
    assert names == ["x" * 59 + "…", "x" * 59 + "… (2)", "echo [31m red"]


@pytest.mark.django_db
def test_a_line_runs_as_its_user_or_not_at_all(settings: Settings, tmp_path: Path):
    folder = tmp_path / "for_news"
    folder.mkdir(mode=0o755)
    (folder / "run_command.py").write_text("")
    (folder / "run_command.py").chmod(0o644)
    roots = {**settings.SCHEDULER["PROGRAM_ROOTS"], "news": folder}
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": roots, "PROGRAM_USERS": {"news": "news"}}
    outcomes = take(f"@daily {ME} mine\n@daily news theirs\n@daily games nobodys\n", user_column=True)
    assert kinds(outcomes) == [Kind.TAKEN, Kind.TAKEN, Kind.REFUSED]
    assert "runs as “games”" in outcomes[2].text
    assert dict(Task.objects.values_list("name", "program_root")) == {"mine": "sample_tasks", "theirs": "news"}
    take("@hourly own")
    assert Task.objects.get(name="own").program_root == "sample_tasks"


@pytest.mark.django_db
def test_a_system_crontab_without_its_option_is_noticed():
    (outcome,) = take("17 * * * * root cd / && run-parts /etc/cron.hourly")
    assert outcome.kind is Kind.REFUSED
    assert "--user-column" in outcome.text


# The command


@pytest.fixture
def crontab(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "crontab"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.django_db
def test_the_command_says_of_each_line_what_became_of_it(
    crontab: Callable[[str], str], owner: User, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(CommandError, match="Lines that could not be taken: 2"):
        call_command("import_crontab", crontab(CRONTAB), "--owner=owner", "--timezone=Europe/Amsterdam")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:8]] == [f"line {n}" for n in (2, 3, 7, 10, 11, 12, 13, 14)]
    assert "taken as “/usr/local/bin/backup --all”: every weekday at 02:30, Europe/Amsterdam" in lines[2]
    assert "NOT TAKEN: @reboot" in lines[6]
    assert lines[8] == "3 taken, 0 there already, 2 not taken. Times without CRON_TZ are read in Europe/Amsterdam."
    assert "remove the taken lines" in lines[9]
    assert set(Task.objects.values_list("owner__username", flat=True)) == {"owner"}


@pytest.mark.django_db
def test_a_crontab_that_is_taken_wholly_is_no_error(
    crontab: Callable[[str], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    call_command("import_crontab", crontab("@daily backup"), "--dry-run")
    assert "Nothing was written, because of --dry-run." in capsys.readouterr().out
    assert not Task.objects.exists()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"@daily backup\n")))
    call_command("import_crontab", "-")
    assert Task.objects.get().schedules.get().time_zone == "UTC"
    assert Task.objects.get().owner is None
    call_command("import_crontab", crontab("@daily backup"))
    assert "0 taken, 1 there already, 0 not taken" in capsys.readouterr().out


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/no/such/file"], "“/no/such/file” cannot be read: No such file or directory."),
        (["/"], "“/” cannot be read: Is a directory."),
        (["/dev/zero"], "that is no crontab."),
        (["FILE", "--owner=nobody"], "There is no user “nobody”."),
        (["FILE", "--timezone=Nowhere"], "There is no time zone “Nowhere”."),
        (["FILE", "--program=sample_tasks/no.py"], "“sample_tasks/no.py” is not a program"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(crontab: Callable[[str], str], arguments: list[str], says: str):
    file = crontab("@daily backup")
    with pytest.raises(CommandError) as raised:
        call_command("import_crontab", *(file if each == "FILE" else each for each in arguments))
    assert says in str(raised.value)
    assert not Task.objects.exists()


@pytest.mark.django_db
def test_without_a_program_that_runs_commands_there_is_nothing_to_import_to(
    crontab: Callable[[str], str], settings: Settings, tmp_path: Path
):
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"empty": tmp_path}}
    with pytest.raises(CommandError, match=r"There is no run_command\.py in any program folder"):
        call_command("import_crontab", crontab("@daily backup"))
