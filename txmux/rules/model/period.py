"""Times of the week."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["MIDNIGHT", "WEEK", "Period"]

WEEK = frozenset(range(7))
MIDNIGHT = 24 * 60


@attrs.frozen
class Period:
    """Times of the week, as the clock on a wall shows them: what it shows twice in autumn is in it twice.

    Attributes:
        days: On which it begins; 0 is Monday.
        start: When it begins, in minutes after midnight.
        end: When it is over, in minutes after midnight; what is before `start` is on the next day.
        zone: Where the wall is; ``None`` is where this machine is.
    """

    days: frozenset[int] = WEEK
    start: int = 0
    end: int = MIDNIGHT
    zone: ZoneInfo | None = None

    def covers(self, moment: float) -> bool:
        """Return whether a moment is in it.

        Args:
            moment: Seconds since 1970, UTC.
        """
        shown = datetime.fromtimestamp(moment, self.zone)
        day, minute = shown.weekday(), shown.hour * 60 + shown.minute
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        if minute >= self.start:
            return day in self.days
        return minute < self.end and (day - 1) % 7 in self.days
