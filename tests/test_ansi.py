"""Colours of logs as HTML that can do nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.ansi import Pen, paint


@pytest.mark.parametrize(
    ("line", "html"),
    [
        ("plain <b>&", "plain &lt;b&gt;&amp;"),
        ("\x1b[31mred\x1b[0m plain", '<span class="ink-1">red</span> plain'),
        ("\x1b[1;4;91mloud\x1b[m", '<span class="bold underlined ink-9">loud</span>'),
        ("\x1b[30;43mwarn\x1b[39;49mend", '<span class="ink-0 ground-3">warn</span>end'),
        ("\x1b[1;2;3;7;9mall\x1b[22;23;27;29mnone", '<span class="bold dim italic inverse struck">all</span>none'),
        ("\x1b[38;5;196mred", '<span class="ink-9">red</span>'),
        ("\x1b[48;5;21;93mon blue", '<span class="ink-11 ground-12">on blue</span>'),
        ("\x1b[38;2;0;128;0mgreen", '<span class="ink-2">green</span>'),
        ("\x1b[38:2::0:128:0mgreen", '<span class="ink-2">green</span>'),
        ("\x1b[38;5;244mgrey", '<span class="ink-8">grey</span>'),
        ("\x9b32mC1", '<span class="ink-2">C1</span>'),
        ("\x1b[32m10 %\r\x1b[2K50 %\r", '<span class="ink-2">50 %</span>'),
        ("\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[31m\x1b[2J<img onerror=x>", '<span class="ink-1">&lt;img onerror=x&gt;</span>'),
        ("\x1b[>4;2mnot a colour \x1b[?25l\x1b[999;38mx", "not a colour x"),
        ('\x1b[31"onload=', "nload="),
    ],
)
def test_colours_are_classes_and_everything_else_is_text(line: str, html: str) -> None:
    assert paint(line, Pen()) == html


def test_a_colour_lasts_until_it_is_ended_also_over_lines() -> None:
    pen = Pen()
    assert paint("\x1b[1;33mfirst", pen) == '<span class="bold ink-3">first</span>'
    assert paint("second", pen) == '<span class="bold ink-3">second</span>'
    later = Pen()
    later.obey(pen.codes)
    assert later == pen
    assert paint("\x1b[0mthird", pen) == "third"
    assert pen.codes == ""


@given(st.lists(st.sampled_from([1, 2, 3, 4, 7, 9, 22, 24, 31, 37, 39, 44, 49, 90, 97, 100, 107]), max_size=8))
def test_codes_bring_a_fresh_pen_to_the_same_place(numbers: list[int]) -> None:
    pen, other = Pen(), Pen()
    pen.obey(";".join(map(str, numbers)) or "0")
    other.obey(pen.codes or "0")
    assert pen == other


def test_what_was_searched_for_is_marked_in_any_case_and_escaped() -> None:
    assert paint("A <b> and a <B>", Pen(), marked="<b>") == ("A <mark>&lt;b&gt;</mark> and a <mark>&lt;B&gt;</mark>")


@given(st.text(alphabet=st.one_of(st.sampled_from("\x1b\x9b[]0123456789;:m\r<>&\"'/"), st.characters())))
def test_no_text_becomes_anything_but_spans_with_known_classes(line: str) -> None:
    html = paint(line, Pen())
    tags = re.findall(r"<[^>]*>", html)
    assert all(re.fullmatch(r'</span>|<span class="[a-z0-9 -]+">', tag) for tag in tags)
    assert "\x1b" not in html
    assert html.count("<span") == html.count("</span>")
