"""The benchmarks' own code, as far as it needs neither peers nor servers. No test looks at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import suite, tables
from benchmarks.systems import SYSTEMS

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture
def results() -> tables.Results:
    made = tables.Results(quick=True, problems=["huey is not installed."])
    made.add("start_ms", "scheduler_warm", [3.0, 1.0, 2.0])
    made.add("start_ms", "rq_fork", [8.0])
    made.add("drained_per_s", "celery_prefork", [900.0])
    made.add("tick_ms_by_name", "scheduler", [0.5], column="10")
    made.add("tick_ms_by_name", "scheduler", [1.0], column="1000000")
    made.add("pss_mb", "poller", [30.0])
    return made


def test_the_command_explains_itself_without_any_peer() -> None:
    command = [sys.executable, "-I", "-S", str(PROJECT / "benchmarks" / "run"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(group in done.stdout for group in suite.GROUPS)


def test_an_unknown_measure_is_refused_before_anything_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--only", "start,teleport"]) == 2
    assert "teleport" in capsys.readouterr().out


def test_an_unknown_system_is_refused_before_anything_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--systems", "rq_fork,cronjob"]) == 2
    assert "cronjob" in capsys.readouterr().out


def test_json_has_medians_by_name_and_ticks_by_the_number_of_schedules(results: tables.Results) -> None:
    made = tables.as_json(results)
    assert made["start_ms"] == {"scheduler_warm": 2.0, "rq_fork": 8.0}
    assert made["drained_per_s"] == {"celery_prefork": 900.0}
    assert made["tick_ms"] == {"10": 0.5, "1000000": 1.0}
    assert made["pss_mb"] == {"poller": 30.0}


def test_tables_name_what_is_not_isolated_what_is_missing_and_the_ratios(results: tables.Results) -> None:
    text = tables.as_markdown(results)
    assert "celery_prefork (one process for many tasks)" in text
    assert "- huey is not installed." in text
    assert "| start beside RQ's fork | 0.25 |" in text
    assert "| tick with 1,000,000 schedules to that with 10 | 2 |" in text


def test_the_picture_is_svg_with_a_bar_for_each_row(results: tables.Results) -> None:
    picture = ElementTree.fromstring(tables.as_svg(results))
    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"scheduler_warm", "rq_fork", "celery_prefork"} <= set(texts)


def test_the_page_keeps_what_stands_around_its_results(results: tables.Results) -> None:
    page = suite.PAGE.read_text(encoding="utf-8")
    once = tables.renewed(page, results)
    assert once.startswith(page.partition(tables.BEGIN)[0])
    assert once.endswith(page.partition(tables.END)[2])
    assert tables.renewed(once, results) == once


@pytest.mark.parametrize(
    ("case", "said"), [("outputs", "5 files are kept. Completed."), ("processes", "they are cancelled")]
)
def test_how_much_of_everything_is_measured_with_little(case: str, said: str) -> None:
    command = [sys.executable, "-m", "benchmarks.bounds", "--only", case, "--share", "0.0005"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
    assert "most memory of the poller" in done.stdout
    assert "Traceback" not in done.stdout


def test_systems_that_share_a_process_are_marked_in_tables() -> None:
    assert {name for name, entry in SYSTEMS.items() if not entry.isolated} == set(tables.NOT_ISOLATED)
