"""A listener: where clients come in, and how many may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from txmux.rules.model.clients import EVERY_CLIENT, Clients
from txmux.rules.model.keepalive import Keepalive
from txmux.rules.model.refusal import Refusal
from txmux.rules.model.section import NOWHERE
from txmux.rules.model.silence import Silence, silences

if TYPE_CHECKING:
    from txmux.rules.model.backend import Outcome
    from txmux.rules.model.networks import NetworkSet
    from txmux.rules.model.section import Section

__all__ = ["Listener", "Rate"]


@attrs.frozen
class Rate:
    """How often something may happen, as a bucket of tokens: it holds `burst` of them, and is full at the beginning.

    Attributes:
        per_second: So many tokens come back each second.
        burst: So many times it may happen at once; at least 1.
    """

    per_second: float
    burst: int


@attrs.frozen
class Listener:
    """One ``[listen]`` section. Times are seconds, sizes are bytes.

    Attributes:
        endpoints: Twisted server endpoint strings or the short forms ``ADDRESS:PORT``, ``[V6]:PORT``, ``:PORT``,
            as written.
        first: Who speaks first. ``server``: clients are led to `default` as soon as they are accepted.
        silent: Where clients are led that say nothing: the first line that fits counts; one outcome is for all of them.
        race: Whether the server that silence leads to is connected at once, in case the client says nothing.
        accept_proxy_from: Who has to begin with a header of the PROXY protocol; ``None`` is nobody. Who comes by a
            UNIX socket has to only if these are `Senders` that say so.
        proxy_timeout: For that header.
        clients: ``allow =`` and ``deny =``: who is let in.
        max_connections: 0 is no limit.
        max_connections_per_source: The same, for each client's address; IPv6 addresses count by /64.
        max_undecided_per_source: The same, only those that detection has not decided about yet.
        connection_rate_per_source: How fast new ones may come from each; ``None`` is no limit.
        keepalive: Of the connections to clients and to servers; ``None`` is none.
        freebind: Whether addresses are listened on that this machine does not have, or not yet.
        tls_strict: Whether a client of TLS that is ended here has to send a close-notify; without one it has broken off.
        section: Its section of a file; `NOWHERE` if it was made in Python.
    """

    name: str
    endpoints: tuple[str, ...] = ()
    detect_timeout: float = 5.0
    peek_limit: int = 32 * 1024
    first: Literal["client", "server"] = "client"
    silent: tuple[Silence, ...] = attrs.field(default=(), converter=silences)
    race: bool = False
    default: Outcome = Refusal.CLOSE
    accept_proxy_from: NetworkSet | None = None
    proxy_timeout: float = 3.0
    clients: Clients = EVERY_CLIENT
    max_connections: int = 0
    max_connections_per_source: int = 0
    max_undecided_per_source: int = 0
    connection_rate_per_source: Rate | None = None
    backlog: int = 1024
    keepalive: Keepalive | None = attrs.field(factory=Keepalive)
    freebind: bool = False
    tls_strict: bool = False
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)
