"""What a rules file says, as frozen values: no text left to parse, no name left to look up."""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Literal

import attrs

from txmux.rules.backend_model import Ejection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from twisted.internet.interfaces import IProtocolFactory

    from txmux.interfaces import Predicate
    from txmux.rules.backend_model import Balance, Check, ServerTLS
    from txmux.rules.client_model import Rate, TlsEnd
    from txmux.rules.during import Period
    from txmux.rules.ini import Section
    from txmux.rules.networks import NetworkSet

__all__ = [
    "Alternative",
    "Backend",
    "InProcess",
    "Listener",
    "Outcome",
    "Refusal",
    "Route",
    "Rules",
    "Server",
    "Settings",
    "backends_of",
]


class Refusal(enum.Enum):
    """What is done with a client that is led to no backend."""

    CLOSE = "close"
    RESET = "reset"
    REJECT = "reject"


@attrs.frozen
class Server:
    """One server of a backend.

    Attributes:
        text: As the rules file names it, for logs and messages: ``127.0.0.1:22``, ``unix:/run/x.sock``.
        kind: ``tcp`` (`host` and `port`), ``unix`` (`path`), ``srv`` (`host` is the name of SRV records) or
            ``endpoint`` (`text` is a Twisted client endpoint string).
        host: An IP address or a host name.
        port: A TCP port, 1 to 65535.
        path: The path of a UNIX socket.
        weight: Its share among the servers of a backend, 1 to 65535.
        backup: Whether it is for the time when no other server is up.
        max_connections: 0 is no limit. Where there are several addresses, for each of them.
        down: Whether it is out of use.
    """

    text: str
    kind: Literal["tcp", "unix", "srv", "endpoint"]
    host: str = ""
    port: int = 0
    path: str = ""
    weight: int = 1
    backup: bool = False
    max_connections: int = 0
    down: bool = False


@attrs.frozen
class Backend:
    """A group of servers, and how connections to it are kept. Times are seconds, rates bytes in a second.

    Attributes:
        proxy_tlvs: What the header of the PROXY protocol, version 2, tells beside the addresses.
        source: Local addresses to connect from, in turn, or only ``client``: the client's own address.
        check: ``None`` is no check.
        eject: ``None`` is never.
        resolve: The longest time until a host name is looked up again.
        tls: How TLS is spoken to the servers; ``None`` is not at all.
        max_connections: 0 is no limit.
        queue: How many clients may wait when `max_connections` is reached, here or for all servers.
        upload_rate: From the client; ``None`` is no limit.
        download_rate: To the client; ``None`` is no limit.
        fallback: Where a client is led when no server can be reached.
    """

    name: str
    servers: tuple[Server, ...]
    balance: Balance = "round-robin"
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    proxy_tlvs: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    connect_timeout: float = 5.0
    retries: int = 2
    idle_timeout: float = 3600.0
    half_close_timeout: float = 60.0
    max_duration: float | None = None
    check: Check | None = None
    eject: Ejection | None = attrs.field(factory=partial(Ejection, lone=False))
    resolve: float = 30.0
    tls: ServerTLS | None = None
    max_connections: int = 0
    queue: int = 0
    queue_timeout: float = 5.0
    upload_rate: int | None = None
    download_rate: int | None = None
    fallback: Outcome = Refusal.CLOSE


@attrs.frozen
class InProcess:
    """A Twisted protocol factory of this process, which gets the connection itself. Only from Python.

    Attributes:
        name: For logs.
        factory: Builds the protocol that serves the client.
    """

    name: str
    factory: IProtocolFactory


Outcome = Backend | InProcess | Refusal
"""Where a decision leads."""


@attrs.frozen
class Alternative:
    """One ``match =`` line: ``[not] MATCHER [option=value]…``.

    Attributes:
        text: The line as written.
        predicate: What the matcher made of it.
        negated: Whether ``not`` stands before it.
    """

    text: str
    predicate: Predicate
    negated: bool = False


@attrs.frozen
class Route:
    """What leads a client to a backend. Any alternative that matches is enough.

    Attributes:
        name: Its name in the file.
        alternatives: The ``match =`` lines, at least one.
        outcome: Where it leads. If it ends TLS, only those that no route under it takes, or that say nothing inside
            of TLS; ``None`` is then where the listener leads such clients.
        allowed: ``from =``: the only networks it serves; ``None`` is every network.
        excluded: ``not_from =``: networks that it does not serve.
        during: The only times at which it serves anyone, of which one is enough; empty is always.
        terminate_tls: The TLS that it ends; ``None`` is none. What the routes under it are asked of is inside.
        under: Names of the listeners, and of routes that end TLS, that it belongs to; empty is every listener.
        log: Whether its connections get a line in the access log.
        dry_run: Whether it only tells what it would have taken.
    """

    name: str
    alternatives: tuple[Alternative, ...]
    outcome: Outcome | None
    allowed: NetworkSet | None = None
    excluded: NetworkSet | None = None
    during: tuple[Period, ...] = ()
    terminate_tls: TlsEnd | None = None
    under: tuple[str, ...] = ()
    log: bool = True
    dry_run: bool = False

    def stands_under(self, place: Listener | Route) -> bool:
        """Tell whether it belongs to a listener, or to a route that ends TLS."""
        # No listener has the name of such a route, if any route is under that name.
        return place.name in self.under or (not self.under and isinstance(place, Listener))


@attrs.frozen
class Listener:
    """One ``[listen]`` section. Times are seconds, sizes are bytes.

    Attributes:
        endpoints: Twisted server endpoint strings or the short forms ``ADDRESS:PORT``, ``[V6]:PORT``, ``:PORT``,
            as written.
        accept_proxy_from: Who has to begin with a header of the PROXY protocol; ``None`` is nobody. Who comes by a
            UNIX socket has to only if these are `Senders` that say so.
        proxy_timeout: For that header.
        max_connections: 0 is no limit.
        max_connections_per_source: The same, for each client's address; IPv6 addresses count by /64.
        max_undecided_per_source: The same, only those that detection has not decided about yet.
        connection_rate_per_source: How fast new ones may come from each; ``None`` is no limit.
    """

    name: str
    endpoints: tuple[str, ...] = ()
    detect_timeout: float = 5.0
    peek_limit: int = 32 * 1024
    silent: Outcome = Refusal.CLOSE
    default: Outcome = Refusal.CLOSE
    accept_proxy_from: NetworkSet | None = None
    proxy_timeout: float = 3.0
    allow: NetworkSet | None = None
    deny: NetworkSet | None = None
    max_connections: int = 0
    max_connections_per_source: int = 0
    max_undecided_per_source: int = 0
    connection_rate_per_source: Rate | None = None
    backlog: int = 1024
    keepalive: bool = True


@attrs.frozen
class Settings:
    """The ``[txmux]`` section.

    Attributes:
        relay: Which relay carries the bytes once a connection stands.
        workers: Processes that share the listening ports.
        max_connections: For the whole service; 0 is no limit.
        drain_timeout: Seconds that old connections may go on when the service stops.
        access_log: ``None`` is off, ``"-"`` the service's own log, else a file.
        access_log_format: How an access log line is written.
        user: Whom the process becomes once it listens, by name or number; ``None`` is nobody else.
        group: The same for its group; ``None`` is that of `user`.
    """

    relay: Literal["auto", "portable", "kernel"] = "auto"
    workers: int = 1
    max_connections: int = 0
    drain_timeout: float = 30.0
    access_log: Path | Literal["-"] | None = "-"
    access_log_format: Literal["text", "json"] = "text"
    user: str | None = None
    group: str | None = None


@attrs.frozen
class Rules:
    """A whole rules file with all that it includes, free of errors.

    Attributes:
        path: The file that was read first.
        routes: In the order of the file, which is their priority.
        backends: Those with a ``[backend]`` section, by name; short forms stand in the routes only.
        sections: Where all this stands, by the headers of the sections; empty if the rules come from no file.
    """

    path: Path
    settings: Settings
    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    backends: dict[str, Backend] = attrs.field(factory=dict)
    sections: Mapping[str, Section] = attrs.field(factory=dict, eq=False, repr=False)

    def outcomes(self) -> Iterator[Outcome]:
        """Give what routes, listeners and the fallbacks of backends lead to; some of it several times."""
        found = [route.outcome for route in self.routes if route.outcome is not None]
        for listener in self.listeners:
            found += [listener.silent, listener.default]
        found += [backend.fallback for backend in self.backends.values()]
        return iter(found)

    def servers(self) -> Iterator[Server]:
        """Give every server that a connection may be led to."""
        for outcome in (*self.backends.values(), *self.outcomes()):
            if isinstance(outcome, Backend):
                yield from outcome.servers

    def routes_of(self, place: Listener | Route) -> tuple[Route, ...]:
        """Give the routes that belong to a listener, or to a route that ends TLS, in their order."""
        return tuple(route for route in self.routes if route.stands_under(place))


def backends_of(outcomes: Iterable[Outcome | None]) -> Iterator[Backend]:
    """Give the backends that outcomes lead to, their fallbacks with them, each once."""
    seen: set[int] = set()
    waiting = list(outcomes)
    for outcome in waiting:
        if isinstance(outcome, Backend) and id(outcome) not in seen:
            seen.add(id(outcome))
            waiting.append(outcome.fallback)
            yield outcome
