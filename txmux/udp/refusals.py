"""Flows that are not begun: there may be thousands in a second, so they are counted, and told of together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from twisted.logger import Logger

from txmux.access.per_source import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from txmux.tcp.configuration import Configuration
    from txmux.telemetry.reasons import EndReason, LimitName
    from txmux.wire.proxyprotocol.header import Address

_QUIET = 60.0  # seconds until the same is told again
_MOST_LINES = 1000  # of the access log, in that time

_log = Logger()


class Refusals:
    """Counts flows that are not begun.

    Args:
        seconds: Tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._counted: dict[str, int] = {}
        self._told_at = self._listed_at = -math.inf
        self._listed: set[Hashable] = set()

    def count(
        self,
        configuration: Configuration,
        reason: EndReason,
        limit: LimitName | None,
        client: Address,
    ) -> bool:
        """Count one.

        Args:
            configuration: Whose rules have refused it.
            reason: Why.
            limit: The limit that was reached; ``None`` if it was something else.
            client: Whose it is.

        Returns:
            Whether it is to have a line in the access log: the first one of a source in a minute has.
        """
        if limit is not None:
            configuration.counts.refused(limit)
        why = limit or ("no PROXY header" if reason == "proxy-header" else "allow, deny or a ban")
        self.note(configuration, why, 1, f", the last one from {client.host}")
        return limit != "max_flows" and self._is_news(client)

    def note(self, configuration: Configuration, why: str, count: int, whose: str = "") -> None:
        """Count some that get no line anywhere else, and tell of all once a minute.

        Args:
            configuration: Whose rules have refused them.
            why: By what.
            count: How many.
            whose: What is told of the last one.
        """
        self._counted[why] = self._counted.get(why, 0) + count
        now = self._seconds()
        if now - self._told_at >= _QUIET:
            self._told_at = now
            counted, self._counted = self._counted, {}
            _log.warn(
                "[{listener}] flows are refused, by {why}{whose}; this is told once a minute",
                listener=configuration.settings.name,
                why=", ".join(f"{name}: {count}" for name, count in counted.items()),
                whose=whose,
            )

    def _is_news(self, client: Address) -> bool:
        now = self._seconds()
        if now - self._listed_at >= _QUIET:
            self._listed_at = now
            self._listed.clear()
        source = source_of(client.host)
        if source in self._listed or len(self._listed) >= _MOST_LINES:
            return False
        self._listed.add(source)
        return True
