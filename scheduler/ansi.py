"""Colours in logs: ANSI escape sequences (ECMA-48, "select graphic rendition") as spans with classes.

A page may have no style attributes: the sixteen colours are classes, and any other colour becomes the one of them
that is most like it. All other escape sequences are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from django.utils.safestring import SafeString, mark_safe

from scheduler.logs import ESCAPES, overwritten, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = {1: "bold", 2: "dim", 3: "italic", 4: "underlined", 7: "inverse", 9: "struck"}
_ENDED_BY = {22: {1, 2}, 23: {3}, 24: {4}, 27: {7}, 29: {9}}
CODES_BYTES = 64
GREY_SPREAD = 32  # between the strongest and the weakest part of a colour that is seen as grey


@dataclass(slots=True)
class Pen:
    """How a terminal would write now, after what it was told so far."""

    flags: set[int] = field(default_factory=set)
    colour: int | None = None
    """0 to 15, as the colour of the text."""
    ground: int | None = None
    """The same for what is behind it."""

    def obey(self, codes: str) -> None:
        """Do what the parameters of a sequence say; what is not understood is passed over."""
        numbers = list(_numbers(codes[:CODES_BYTES]))
        while numbers:
            number = numbers.pop(0)
            if number == 0:
                self.flags, self.colour, self.ground = set(), None, None
            elif number in FLAGS:
                self.flags.add(number)
            elif number in _ENDED_BY:
                self.flags -= _ENDED_BY[number]
            elif number in {38, 48}:
                self._take(_other_colour(numbers), is_ground=number == 48)
            elif number in {39, 49}:
                self._take(None, is_ground=number == 49)
            elif number in range(30, 38) or number in range(90, 98):
                self._take(number % 10 + 8 * (number >= 90), is_ground=False)
            elif number in range(40, 48) or number in range(100, 108):
                self._take(number % 10 + 8 * (number >= 100), is_ground=True)

    def _take(self, colour: int | None, *, is_ground: bool) -> None:
        if is_ground:
            self.ground = colour
        else:
            self.colour = colour

    @property
    def codes(self) -> str:
        """Parameters that bring a fresh pen to where this one is."""
        numbers = sorted(self.flags)
        if self.colour is not None:
            numbers.append(30 + self.colour if self.colour < 8 else 82 + self.colour)
        if self.ground is not None:
            numbers.append(40 + self.ground if self.ground < 8 else 92 + self.ground)
        return ";".join(map(str, numbers))

    @property
    def classes(self) -> str:
        names = [FLAGS[number] for number in sorted(self.flags)]
        names += [f"ink-{self.colour}"] if self.colour is not None else []
        names += [f"ground-{self.ground}"] if self.ground is not None else []
        return " ".join(names)


def paint(line: str, pen: Pen, *, marked: str = "") -> SafeString:
    """A line as HTML, in the colours that it asks for; ``pen`` is afterwards as the line has left it.

    ``marked``: a text that is marked wherever it stands, whatever its capital and small letters are.
    """
    hidden, seen = overwritten(line)
    for found in ESCAPES.finditer(hidden):
        if found[1] is not None:
            pen.obey(found[1])
    html = []
    for text, classes in _pieces(seen, pen):
        shown = _marked(printable(text), marked)
        html.append(f'<span class="{classes}">{shown}</span>' if classes else shown)
    return mark_safe("".join(html))  # noqa: S308 (every text in it is escaped)


def _pieces(line: str, pen: Pen) -> Iterator[tuple[str, str]]:
    """The texts between the sequences, each with the classes that it is written in."""
    start = 0
    for found in ESCAPES.finditer(line):
        if start < found.start():
            yield line[start : found.start()], pen.classes
        if found[1] is not None:
            pen.obey(found[1])
        start = found.end()
    if start < len(line):
        yield line[start:], pen.classes


def _marked(text: str, marked: str) -> str:
    if not marked:
        return escape(text)
    parts = re.split(f"({re.escape(marked)})", text, flags=re.IGNORECASE)
    return "".join(
        f"<mark>{escape(part)}</mark>" if index % 2 else escape(part) for index, part in enumerate(parts) if part
    )


def _numbers(codes: str) -> Iterator[int]:
    for part in codes.split(";"):
        head, *details = part.split(":")
        if details and head in {"38", "48"}:  # 38:5:n, 38:2:r:g:b or 38:2:space:r:g:b, in one parameter
            kind, *values = details
            yield from map(_number, [head, kind, *values[-3:]])
        elif head == "4" and details[:1] == ["0"]:
            yield 24
        else:
            yield _number(head)


def _number(text: str) -> int:
    """0 for nothing, as the standard has it; -1 for what is no parameter of ours."""
    return int(text or "0") if len(text) <= 3 and (text.isdecimal() or not text) else -1


def _other_colour(numbers: list[int]) -> int | None:
    """Takes the colour that follows 38 or 48 out of the numbers: one of 256, or red, green and blue."""
    kind = numbers.pop(0) if numbers else -1
    count = {5: 1, 2: 3}.get(kind, 0)
    values, numbers[:count] = numbers[:count], []
    if len(values) < count or not count:
        return None
    if kind == 2:
        return _nearest(*values)
    index = values[0]
    if index < 16:
        return max(index, 0)
    if index >= 232:
        return _nearest(*[8 + 10 * (index - 232)] * 3)
    levels = [0, 95, 135, 175, 215, 255]
    index -= 16
    return _nearest(levels[index // 36], levels[index // 6 % 6], levels[index % 6])


def _nearest(red: int, green: int, blue: int) -> int:
    """The one of the sixteen colours that is most like it: by its hue, and then by how bright it is."""
    least, most = min(red, green, blue), max(red, green, blue)
    if most - least < GREY_SPREAD:
        return 0 if most < 64 else 8 if most < 160 else 7 if most < 224 else 15
    middle = (least + most) / 2
    hue = (red > middle) + 2 * (green > middle) + 4 * (blue > middle)
    return hue + 8 * (most > 215)
