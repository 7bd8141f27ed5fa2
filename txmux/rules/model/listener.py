"""A listener: its endpoints, its limits and time-outs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import attrs

from txmux.classes import frozen
from txmux.rules.model.backend import Outcome, Refusal
from txmux.rules.model.networks import EVERY_CLIENT, Clients, NetworkSet
from txmux.rules.model.section import NOTHING_MORE, NOWHERE, Section
from txmux.transport import Keepalive, Transport

Logged: TypeAlias = bool | Literal["errors"]
"""All, none, or only those with something to look into."""

SHORT_FORM = "silent"
"""The name of the route that the lines of ``silent =`` are, in logs and numbers."""

_USUAL, _USUAL_OF_SILENT = 5.0, 3.0  # seconds
_ORDER: tuple[Logged, ...] = (False, "errors", True)


def fewer(one: Logged, other: Logged) -> Logged:
    return one if one is other else min(one, other, key=_ORDER.index)


@frozen
class Silence:
    """One line of ``silent =``.

    Attributes:
        outcome: The outcome for its clients.
        clients: Which clients it is for.
        after: Seconds without a byte; ``None`` is the listener's ``detect_timeout``.
        route: The name of the route whose short form it is; ``None`` for what another route does with such clients.
    """

    outcome: Outcome
    clients: Clients = EVERY_CLIENT
    after: float | None = None
    route: str | None = SHORT_FORM


def silences(silent: Outcome | Iterable[Silence]) -> tuple[Silence, ...]:
    """Make the lines of ``silent =``; one outcome is that of every client."""
    several = isinstance(silent, Iterable) and not isinstance(silent, (Outcome, str))
    lines: Iterable[Any] = silent if several else (silent,)  # type: ignore[assignment]
    return tuple(line if isinstance(line, Silence) else Silence(line) for line in lines)


@frozen
class Rate:
    """A rate limit, as a bucket of tokens, which is full at the beginning.

    Attributes:
        per_second: Tokens added per second.
        burst: Tokens that the bucket holds; at least 1.
    """

    per_second: float
    burst: int


@frozen
class Listener:
    """One ``[listen]`` section. Times are seconds, sizes are bytes.

    An attribute is the key of its name, and ``txmux.rules.reading.listener.KEYS`` says what that means.

    Attributes:
        endpoints: The lines of ``endpoint =``.
        transport: Streams or datagrams.
        silent: One outcome is for all clients.
        clients: ``allow =`` and ``deny =``.
        is_of_unit: Whether it belongs to another unit than the operator's, so that only routes which name it are for it.
        section: Its section of a file; `NOWHERE` if it was made in Python.
        more: The values of the keys of features, by name.
    """

    name: str
    endpoints: tuple[str, ...] = ()
    transport: Transport = attrs.field(init=False, eq=False, repr=False)
    silent: tuple[Silence, ...] = attrs.field(default=(), converter=silences)
    detect_timeout: float = attrs.field()
    peek_limit: int = attrs.field()
    first: Literal["client", "server"] = "client"
    default: Outcome = Refusal.CLOSE
    accept_proxy_from: NetworkSet | None = None
    proxy_timeout: float = 3.0
    clients: Clients = EVERY_CLIENT
    end_denied: bool = False
    max_connections: int = 0
    max_connections_per_source: int = 0
    max_undecided_per_source: int = 0
    connection_rate_per_source: Rate | None = None
    keepalive: Keepalive | None = attrs.field(factory=Keepalive)
    freebind: bool = False
    mptcp: bool = False
    tls_strict: bool = False
    capture: bool = True
    log: Logged = True
    max_flows: int | None = None
    max_flows_per_source: int = 0
    routes_from: tuple[str, ...] = ()
    is_of_unit: bool = False
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)
    more: Mapping[str, Any] = attrs.field(default=NOTHING_MORE, hash=False)

    @detect_timeout.default
    def _usual_detect_timeout(self) -> float:
        if self.transport is Transport.UDP:
            return 0.3
        # ssh-keyscan, which waits for the server, gives up after 5 seconds in all.
        refusals = (*Refusal, *(one.value for one in Refusal))  # a program may write the word
        names_server = any(line.outcome not in refusals for line in self.silent)
        return _USUAL_OF_SILENT if names_server else _USUAL

    @peek_limit.default
    def _usual_peek_limit(self) -> int:
        return 16 * 1024 if self.transport is Transport.UDP else 32 * 1024

    @transport.default
    def _transport_of_endpoints(self) -> Transport:
        for text in self.endpoints:
            if text.startswith("udp:"):
                return Transport.UDP
        return Transport.TCP

    @property
    def silent_after(self) -> float:
        """Seconds after which a route with ``match = silent`` takes a client, if it does not say itself."""
        # A longer time is given to clients that say something; who has written one means it.
        is_usual = self.detect_timeout == _USUAL and "detect_timeout" not in self.section.entries
        return _USUAL_OF_SILENT if is_usual else self.detect_timeout

    @property
    def outcomes(self) -> list[Outcome]:
        return [*(line.outcome for line in self.silent), self.default]
