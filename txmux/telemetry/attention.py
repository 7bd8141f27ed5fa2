"""What needs an operator's attention: items with a level, a cause and what to do."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args
from urllib.parse import quote

import attrs
from attrs.validators import min_len
from twisted.logger import Logger

from txmux.classes import frozen
from txmux.errors import printable
from txmux.telemetry.documents import AttentionDocument, row_of
from txmux.telemetry.formatting import duration
from txmux.telemetry.presentation import attention_text, folded_attention

Level = Literal["critical", "warning", "note"]
"""``critical``: clients are turned away or lost now; ``warning``: they will be, or protection is off."""

CANNOT_START = "cannot be started"
"""Begins the reason of a restart for which there was no process."""
MEMORY_RAN_OUT = "memory had run out"
"""In the reason of a restart: the kernel had killed the process for that."""

OF_FEW = "; one or two sources have most connections"
"""Ends the reason of a shortage that one client may have made: no item is critical for it, and ``/readyz`` is not 503."""
_MANY = 0.8  # of the connections

LEVELS: tuple[Level, ...] = get_args(Level)


@frozen
class AttentionItem:
    """One thing that needs attention.

    Attributes:
        level: How bad it is.
        what: The topic, a label of ``txmux_attention``.
        text: What is wrong, with its names; no full stop.
        cause: The newest cause, with its number, as in ``connection refused, 37 of 37 in 12 s``; empty if there is none.
        since: When it began, in seconds since 1970; ``None`` if its reporter does not know.
        do: A sentence or a command that helps.
        link: The page that shows it, relative to that of the service, such as ``?backend=web#servers``; empty if there is none.
        subject: With `what`, the same as long as the item is the same one, such as the name of a backend; the text if empty.
        is_logged: Whether another part logs its beginning and its end.
        instead_of: The topic whose items it stands for: they have not ended.
        section: What it is about, as ``backend web``; empty for the whole service.
        owner: Whose rules that is in: a file or a user; empty for the operator's.
    """

    level: Level
    what: str
    text: str
    cause: str = ""
    since: float | None = None
    do: str = attrs.field(kw_only=True)
    link: str = ""
    subject: str = ""
    is_logged: bool = False
    instead_of: str = ""
    section: str = ""
    owner: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.what, self.subject or self.text

    def as_json(self) -> AttentionDocument:
        return row_of(AttentionDocument, self)


@frozen(eq=False, kw_only=True)
class AttentionRow:
    """What all items of a kind have in common; an item has values for the names in ``{}``.

    Attributes:
        level, what, text, cause, do, link, subject, is_logged, section: As in `AttentionItem`.
        when: When there is such an item; the table of topics joins those of a topic and a level.
        runbook: The heading of the troubleshooting page, as in its address.
        sources: How many sources of clients it takes, and why, for the table of who can raise it.
        alerts: The names of its alerts, which ``docs/alerts.py`` has, or why there is none.
    """

    what: str
    level: Level
    text: str
    cause: str = ""
    link: str = ""
    subject: str = ""
    is_logged: bool = False
    section: str = ""
    do: str = attrs.field(validator=min_len(1))
    when: str = attrs.field(validator=min_len(1))
    runbook: str = attrs.field(validator=min_len(1))
    sources: str = attrs.field(validator=min_len(1))
    alerts: Sequence[str] | str = attrs.field(validator=min_len(1))

    def item(self, since: float | None = None, **names: object) -> AttentionItem:
        # A file of another user may be called by any text.
        texts = {
            name: printable(getattr(self, name).format(**names)) for name in ("text", "cause", "do")
        }
        for name in ("subject", "section"):
            texts[name] = getattr(self, name).format(**names)
        link = self.link.format(backend=quote(str(names.get("backend")), errors="replace"))
        return AttentionItem(
            self.level, self.what, since=since, link=link, is_logged=self.is_logged, **texts
        )


def beside_busiest(rates: Iterable[float]) -> float:
    """Return what is left of a rate without its two busiest sources; the rate is the highest, and that of each source follows it."""
    of_all, *busiest = sorted(rates, reverse=True)
    return max(0.0, of_all - sum(busiest[:2]))


def of_few(by_source: Counter[Any]) -> str:
    """Return `OF_FEW` if there would be room without the two sources that have the most; else an empty text."""
    count = by_source.total()
    return OF_FEW if beside_busiest([count, *by_source.values()]) < _MANY * count else ""


_SETTLED = 60.0  # seconds after which all is noticed again that lasts, in a process that has replaced another


class AttentionLog:
    """Remembers since when each item has been, and logs where it begins and ends, unless another part does.

    Args:
        now: Returns seconds since 1970.
        seconds: The monotonic clock.
    """

    _log = Logger()

    def __init__(
        self, now: Callable[[], float] = time.time, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._now, self._seconds = now, seconds
        self._lasting: dict[tuple[str, str], AttentionItem] = {}
        self._settled_at = 0.0

    def record(
        self, items: Iterable[AttentionItem], *, complete: bool = True
    ) -> list[AttentionItem]:
        """Return what needs attention now, the worst first, then the oldest, each item with its `since`.

        Unless the view is `complete`, what is not in it may only be unknown, and does not end.
        """
        now, found = self._now(), {item.key: item for item in items}
        ended = list[AttentionItem]()
        if complete and self._seconds() >= self._settled_at:
            last = {item.instead_of for item in found.values()}
            for key in [key for key in self._lasting if key not in found]:
                before = self._lasting.pop(key)
                if before.what not in last:
                    ended.append(before)
        for row in _folded(ended):
            seconds = max(0, int(now - (row["since"] or now)))
            self._log.info(
                "resolved after {time}: {text}", time=duration(seconds), text=row["text"]
            )
        begun = [item for item in found.values() if self._is_new(item)]
        noted = [self._noted(item, now) for item in found.values()]
        for row in _folded(begun):
            log = self._log.info if row["level"] == "note" else self._log.warn
            log("needs attention: {text}; {do}", text=attention_text(row), do=row["do"])
        return sorted(noted, key=lambda item: (LEVELS.index(item.level), item.since or 0.0))

    def state(self) -> list[dict[str, Any]]:
        return [attrs.asdict(item) for item in self._lasting.values()]

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for fields in rows:
            with suppress(TypeError):  # of another version
                item = AttentionItem(**fields)
                self._lasting[item.key] = item
                self._settled_at = self._seconds() + _SETTLED

    def _is_new(self, item: AttentionItem) -> bool:
        before = self._lasting.get(item.key)
        return before is None or LEVELS.index(item.level) < LEVELS.index(before.level)

    def _noted(self, item: AttentionItem, now: float) -> AttentionItem:
        before = self._lasting.get(item.key)
        if item.since is None:
            item = attrs.evolve(item, since=before.since if before else now)
        self._lasting[item.key] = item
        return item


def _folded(items: Iterable[AttentionItem]) -> Sequence[Mapping[str, Any]]:
    # Of another owner only the first few of a topic, as `txmux status` shows.
    return folded_attention({"attention": [item.as_json() for item in items if not item.is_logged]})
