"""The daemon that decides: what is due, whose turn it is, what has ended."""

from .daemon import PollerDaemon

__all__ = ["PollerDaemon"]
