"""What other code of the site may listen to."""

from __future__ import annotations

from django.dispatch import Signal

# Sent once for each alarm, by a poller, once it is stored; ``alarm`` is the row, ``sender`` scheduler.models.Alarm.
# What a receiver raises is logged and stops nobody.
alarm = Signal()
