"""The value of ``during``: ``mon-fri 08:00-18:00 Europe/Paris``, ``22:00-06:00``, ``sat,sun``."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from txmux.rules.model.route import MIDNIGHT, WEEK, Period
from txmux.rules.problems import InvalidValueError, did_you_mean, with_advice

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_AROUND = re.compile(r"\s*([,-])\s*")
_FORMS = "write for example 'mon-fri 08:00-18:00', '22:00-06:00 Europe/Paris' or 'sat,sun'"


def period(text: str) -> Period:
    """Read one line of ``during``: ``[DAYS] [HH:MM-HH:MM] [ZONE]``.

    Raises:
        InvalidValueError: It is not such a line.
    """
    words = _AROUND.sub(r"\1", text).split()
    days, start, end, zone = WEEK, 0, MIDNIGHT, None
    if not words[0][0].isdigit():
        days = _days(words.pop(0))
    if words and words[0][0].isdigit():
        start, end = _times(words.pop(0))
    if words:
        zone = _zone(words.pop(0))
    if words:
        raise InvalidValueError(f"{words[0]!r} is one word too many; {_FORMS}")
    return Period(days, start, end, zone)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = _day(first), _day(last) if "-" in part else _day(first)
        found.update((begin + n) % 7 for n in range((end - begin) % 7 + 1))
    return frozenset(found)


def _day(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    meant = text.lower()[:3]
    hint = f"; did you mean {meant!r}?" if meant in _DAYS else did_you_mean(text, _DAYS)
    raise InvalidValueError(with_advice(f"{text!r} is not a day{hint}", _FORMS))


def _times(text: str) -> tuple[int, int]:
    if "," in text:
        raise InvalidValueError(f"{text!r} is more than one time; write each in a line of its own")
    found = _TIMES.fullmatch(text)
    if found is None:
        raise InvalidValueError(f"{text!r} is not a time from HH:MM to HH:MM; {_FORMS}")
    start, end = _minutes(found[1], found[2]), _minutes(found[3], found[4])
    if start == MIDNIGHT:
        raise InvalidValueError(f"{text!r} begins when the day is over; begin it at 00:00")
    if start == end:
        raise InvalidValueError(f"{text!r} begins when it ends; the whole day is 00:00-24:00")
    return start, end


def _minutes(hours: str, minutes: str) -> int:
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > MIDNIGHT:
        raise InvalidValueError(f"'{hours}:{minutes}' is not a time of day; from 00:00 to 24:00")
    return found


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
    hint = did_you_mean(text, known) or "; write one such as Europe/Paris or UTC"
    if text[:3].lower() in _DAYS:
        hint = f"; if it is a day, it comes first: {_FORMS}"
    elif not known:
        hint = ", nor any other on this system; install its tzdata"
    raise InvalidValueError(f"there is no time zone {text!r}{hint}")
