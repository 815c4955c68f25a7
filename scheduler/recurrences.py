"""Date arithmetic of recurrences (see the helper's version)."""
from __future__ import annotations
from dataclasses import dataclass
class InvalidRule(ValueError): ...
@dataclass(frozen=True)
class Once: ...
@dataclass(frozen=True)
class Every:
    count: int
    unit: str
@dataclass(frozen=True)
class Cron:
    line: str
Rule = Once | Every | Cron
