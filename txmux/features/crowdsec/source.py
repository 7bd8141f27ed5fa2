"""Fetches the bans of a CrowdSec, as its bouncers do.

Source: CrowdSec, Local API, ``GET /v1/decisions/stream``: first with ``startup=true``, then what has changed since.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from txmux.access.bans import banned_network
from txmux.access.dynamic_networks import Packed, pack
from txmux.classes import define
from txmux.errors import MuxError
from txmux.net.http import NotConnectedError, ResponseTimeoutError, request
from txmux.net.secrets import secret_of
from txmux.rules.model import IPNetwork, NetworkSet
from txmux.wire.jsontext import JsonLists

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|µs|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SCOPES = frozenset({"ip", "range"})

_PATH = "/v1/decisions/stream?startup={startup}&scopes=ip,range"
_PATIENCE = 10.0  # seconds until an answer begins, and for the rest of it
_MOST_DECISIONS = 200_000  # each ban takes some 600 bytes of memory
_MOST_BYTES = 600 * _MOST_DECISIONS  # a decision has some 200
_OK = 200
_LONGEST_WAIT = 8  # polls, after failures: 80 s


class _AwayError(MuxError):
    """CrowdSec gave no usable answer."""


class Decisions:
    """The bans of one CrowdSec, as far as they are known."""

    def __init__(self) -> None:
        self._until: dict[IPNetwork, float] = {}

    def replace(self, answer: DecisionsReader) -> None:
        self._until = answer.new

    def change(self, answer: DecisionsReader) -> None:
        """Apply an answer with the changes since the last one; raises if there are too many bans then."""
        for network in answer.deleted:
            self._until.pop(network, None)
        self._until.update(answer.new)
        if len(self._until) > _MOST_DECISIONS:
            raise _AwayError(f"there are more than {_MOST_DECISIONS} bans")

    def networks(self, now: float) -> NetworkSet:
        """Return the banned networks, and remove expired ones."""
        self._until = {network: until for network, until in self._until.items() if until > now}
        return NetworkSet(self._until)


class DecisionsReader:
    """Reads an answer as it arrives; raises `ValueError` if it is none.

    CrowdSec always sends both lists, if only as ``null``. What a proxy before it answers may be JSON, too, and must not lift bans.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._lists = JsonLists(self._take)
        self.feed = self._lists.feed
        self._count = 0
        self.new: dict[IPNetwork, float] = {}
        self.deleted: dict[IPNetwork, float] = {}

    def end(self) -> None:
        self._lists.end()
        for name in ("new", "deleted"):
            if name not in self._lists.names:
                raise ValueError(f"{name!r} is missing")

    def _take(self, name: str, decision: Any) -> None:
        if not isinstance(decision, dict):
            raise ValueError(f"{name[:20]!r} has something else")  # noqa: TRY004 - it came in as text
        self._count += 1
        if self._count > _MOST_DECISIONS:
            raise ValueError(f"there are more than {_MOST_DECISIONS}")
        if name in {"new", "deleted"}:
            (self.new if name == "new" else self.deleted).update(_bans(decision, self._now))


@define(eq=False, slots=False)
class CrowdSec:
    """A client of one CrowdSec. That records what it has sent to each key, so this service needs a key of its own."""

    _log = Logger()

    _reactor: Any
    _url: str
    _key: Path
    _is_known = False
    skip = _failed = 0
    trouble: str = attrs.field(default="", init=False)  # why it cannot be queried; empty if it can
    _last: Packed | None = attrs.field(default=None, init=False)
    _decisions: Decisions = attrs.field(factory=Decisions, init=False)

    async def fetch_changes(self) -> Packed | None:
        """Fetch the changes, and return the banned networks, if they are different now."""
        if self.skip:
            self.skip -= 1
        else:
            await self._ask()
        if not self._is_known and self._last is None:
            return None  # it has never answered; the bans of another process stay
        networks = self._decisions.networks(self._reactor.seconds())
        packed = pack(networks)
        if packed == self._last:
            return None
        self._last = packed
        return packed

    async def _ask(self) -> None:
        try:
            reader = await self._answer()
            take_in = self._decisions.change if self._is_known else self._decisions.replace
            take_in(reader)
        except MuxError as problem:
            # CrowdSec does not repeat a lost answer, so the next request asks for all decisions.
            self._is_known = False
            self._failed += 1
            self.skip = min(2**self._failed // 2, _LONGEST_WAIT) - 1
            self.trouble = str(problem)
            return
        if not self._is_known and not self.trouble:
            self._log.info("CrowdSec at {url}: receiving its bans", url=self._url)
        self._is_known, self.trouble = True, ""
        self._failed = self.skip = 0

    async def _answer(self) -> DecisionsReader:
        reader = DecisionsReader(self._reactor.seconds())
        startup = "false" if self._is_known else "true"
        key = await secret_of(self._key)
        try:
            answer = await request(
                self._reactor,
                "GET",
                self._url + _PATH.format(startup=startup),
                {"X-Api-Key": key, "Accept": "*/*"},
                seconds=_PATIENCE,
                most=_MOST_BYTES,
                body_seconds=_PATIENCE,
                take=reader.feed,
            )
            if answer.status == _OK:
                reader.end()
                return reader
        except NotConnectedError as problem:
            raise _AwayError(f"cannot connect: {problem}") from None
        except ResponseTimeoutError:
            raise _AwayError(f"no answer in {_PATIENCE:g} s") from None
        except ValueError as problem:
            raise _AwayError(f"its answer has no lists of decisions: {problem}") from None
        if answer.status in {401, 403}:
            message = f"it rejects the key in '{self._key}'; create one with 'cscli bouncers add'"
            raise _AwayError(message)
        raise _AwayError(f"it answers {answer.status}")


def seconds_in(duration: str) -> float:
    """Read a duration as Go writes it, such as ``3h59m49.4s``; raises `ValueError` if it is not one."""
    sign, text = (-1, duration[1:]) if duration.startswith("-") else (1, duration)
    if not text or _PART.sub("", text):
        raise ValueError(f"{duration!r} is not a duration")
    return sign * sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _bans(decision: Mapping[str, Any], now: float) -> Iterator[tuple[IPNetwork, float]]:
    """Yield the network that a decision bans; one of another kind, or not on addresses, is left out."""
    # An unreadable decision must not stop the others.
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        if decision["type"].lower() == "ban" and decision["scope"].lower() in _SCOPES:
            yield _network(decision["value"]), now + seconds_in(decision["duration"])


def _network(value: str) -> IPNetwork:
    try:
        return banned_network(value)
    except ValueError:
        return ip_network(value, strict=False)  # 192.0.2.7/24 is meant as its network
