"""A backend: its servers, and how connections to them are made and maintained; and the other outcomes of a client."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from txmux.classes import frozen
from txmux.rules.model.networks import Public, Reachable
from txmux.rules.model.section import NOTHING_MORE, NOWHERE, Section
from txmux.transport import IPAddress, Transport, bracketed, embedded, normal_host

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

    from txmux.rules.problems import Problem
    from txmux.wire.globs import Globs


class Refusal(enum.Enum):
    """How a client without a backend is turned away."""

    CLOSE = "close"
    RESET = "reset"
    REJECT = "reject"


@frozen
class InProcess:
    """A Twisted protocol factory of this process, which gets the connection itself. Only from Python.

    Attributes:
        name: For logs.
        factory: Builds the protocol that serves the client.
    """

    name: str
    factory: IProtocolFactory = attrs.field(hash=False)  # it may have no hash


@frozen
class Handover:
    """Where clients' sockets are handed over; the bytes that decided are still in them.

    Attributes:
        path: Of the UNIX socket where the server takes them.
        users: The numbers of the users whose servers may take them, beside root and the user of this process.
    """

    path: str
    users: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        return f"handover:{self.path}"


_PUBLIC = Reachable([Public.PUBLIC])
_WITH_PORTS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})(?:-([0-9]{1,5}))?")


def split_source(text: str) -> tuple[str, range | None]:
    """Split ``192.0.2.1:40000-50000`` or ``[2001:db8::1]:40000``; the ports are ``None`` if the system is to choose."""
    match = _WITH_PORTS.fullmatch(text)
    if match is None:
        return text, None
    v6, v4, first, last = match.groups()
    return v6 or v4, range(int(first), int(last or first) + 1)


Balance = Literal[
    "round-robin", "least-connections", "random", "source-hash", "sni-hash", "host-hash", "first"
]
"""How one of several servers is chosen."""

CheckKind = Literal["tcp", "http", "redis", "postgres", "mysql", "smtp", "ssh", "dns", "expect="]
"""The kinds of health checks; ``expect=`` may have ``send=``, too."""


LOCAL = "{local}"
"""As a server's host: the address that the client connected to."""

PORT = "{port}"
"""As a server's port, which is 0 then: the one that the client connected to."""

NAMES = {"{sni}": "sni", "{host}": "host"}
"""In a server's host: the name that the client asks for, and the fact with that name."""


@frozen
class Server:
    """One server of a backend.

    Attributes:
        text: As the rules file names it, for logs and messages: ``127.0.0.1:22``, ``unix:/run/x.sock``.
        kind: Empty is by `text`, once a `MuxFactory` or a service uses it; else ``tcp`` or ``udp`` (`host` and `port`), ``unix`` (`path`), ``srv`` (`host` is the name of SRV records),
            ``endpoint`` (`text` is a Twisted client endpoint string), or the word of a feature that finds addresses by `query`.
        host: An IP address, a host name, `LOCAL`, or a text with one of `NAMES`.
        port: 1 to 65535; 0 is that of the client.
        path: The path of a UNIX socket.
        weight: Its share among the servers of a backend, 1 to 65535.
        backup: Whether it is for the time when no other server is up.
        max_connections: 0 means no limit. Where there are several addresses, for each of them.
        down: Whether it is out of use.
        final: Whether its clients go to no other server: it keeps its share, whatever is found out about it.
        query: What the feature asks for, and where; empty for all other kinds.
        owner: The user who must run the server of a UNIX socket; ``None`` is any. Set for rules of a user with fewer rights than the service.
    """

    text: str
    kind: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    weight: int = 1
    backup: bool = False
    max_connections: int = 0
    down: bool = False
    final: bool = False
    query: tuple[Any, ...] = ()
    owner: int | None = None

    @property
    def depends_on_client(self) -> bool:
        """Whether it is another one for each client, so that its health for one says nothing of others."""
        return "{" in self.host or (not self.port and self.kind in {"tcp", "udp"})

    @property
    def is_judged(self) -> bool:
        return not (self.final or self.depends_on_client)

    @property
    def placeholder(self) -> str:
        return next((placeholder for placeholder in NAMES if placeholder in self.host), "")

    def name_for(self, facts: Mapping[str, str]) -> str:
        """Return the name that its host stands for to a client with these facts; empty if that has none."""
        placeholder = self.placeholder
        name = facts.get(NAMES[placeholder], "") if placeholder else ""
        if name and placeholder != self.host:
            name = self.host.replace(placeholder, name.removesuffix("."))
        return normal_host(name)

    def at(self, host: str, port: int = 0) -> Server:
        """Return it with an IP address in the place of its host, and perhaps another port."""
        before, port = "udp:" if self.kind == "udp" else "", port or self.port
        text = f"{before}{bracketed(host)}:{port}"
        return attrs.evolve(self, text=text, host=host, port=port)


@frozen
class AllowedNames:
    """The names that clients may, or may not, be connected to; made by `txmux.rules.reading.backend.allowed_names`.

    Attributes:
        text: As they are written; those with the same text are the same.
        patterns: A name needs one that fits.
    """

    text: str
    patterns: tuple[Globs, ...] = attrs.field(eq=False)

    def allow(self, name: str) -> bool:
        return any(pattern.matches(name) for pattern in self.patterns)


@frozen
class Check:
    """A health check of servers. Times are seconds.

    Attributes:
        kind: The kind of check.
        interval: From the begin of one check to that of the next.
        timeout: For the whole of one check.
        rise: Checks in a row that bring a server back.
        fall: Checks in a row that take it out.
        method: Of the HTTP request.
        path: Of the HTTP request.
        host: The HTTP request's ``Host``; empty is the server's own name.
        statuses: The HTTP statuses of a healthy server.
        send: The bytes that are sent first; of an HTTP check, in place of the usual request.
        expect: The bytes that the answer has to contain.
        port: The port that is checked; 0 is the server's own. Elsewhere there is no PROXY header, and no TLS of the
            backend.
        tls: Whether TLS is spoken; ``None`` if that is as for clients.
        sni: The name that is sent with TLS where the backend has none; empty is the server's own.
        name: The name in the query to a DNS server.
        user: Whom a check of MySQL logs in as, without a password.
    """

    kind: CheckKind
    interval: float = 3.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    method: str = "GET"
    path: str = "/"
    host: str = ""
    statuses: tuple[range, ...] = (range(200, 300), range(300, 400))
    send: bytes = b""
    expect: bytes = b""
    port: int = 0
    tls: bool | None = None
    sni: str = ""
    name: str = ""
    user: str = "txmux"


@frozen
class Ejection:
    """When connections that fail take a server out, and for how long. Times are seconds.

    Attributes:
        failures: Failed connections,
        within: within this time,
        seconds: take the server out for this time.
        lone: Whether the only server of a backend is taken out, too.
        unanswered: Flows of datagrams without any answer, or clients of TCP without a byte, in a row that do the same; 0 is
            never, as such servers do not answer, and ``None`` is never, although they should.
        after: How long a client of TCP has to have had no byte.
    """

    failures: int = 3
    within: float = 10.0
    seconds: float = 10.0
    lone: bool = attrs.field(default=True, eq=False)
    unanswered: int | None = None
    after: float = 15.0


@frozen
class Resolve:
    """How names of servers are looked up again. Times are seconds.

    Attributes:
        interval: The longest time until a host name is looked up again, or what finds servers asks again.
        keep: How long addresses are used that cannot be found again (RFC 8767, section 5); infinite if there is no end.
    """

    interval: float = 30.0
    keep: float = 86400.0


@frozen
class ServerTLS:
    """TLS to the servers of a backend.

    Attributes:
        name: What the server's certificate is verified for; empty is the server's own name or address.
        ca: A PEM file with the certificates that are trusted; ``None`` is those of the system.
        certificate: PEM files with the client's certificate chain and its key; empty is none.
        alpn: The protocols that are offered; empty is those of the client.
        may_lack: Whether files that cannot be used are no error, as those of a unit: until they can, no server is connected.
    """

    name: str = ""
    ca: Path | None = None
    certificate: tuple[Path, ...] = ()
    alpn: tuple[str, ...] = ()
    may_lack: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        return (*filter(None, [self.ca]), *self.certificate)


class ForwardProxy:
    """What connects to the servers of a backend in place of this machine, and looks up their names: the value of a feature's key.

    Attributes:
        key: That key.
        server: Where the proxy is; its text is for logs: ``socks5://proxy:1080``.
        password: The file with the password of a login.
        may_lack: Whether it is no error if that cannot be read, as for a unit: until it can, no server is connected.
    """

    __slots__ = ()
    key: ClassVar[str]
    server: Server
    password: Path | None
    may_lack: bool


@frozen(cache_hash=True)  # thousands of routes may look one with thousands of servers up
class Backend:
    """A group of servers, and the settings of connections to it. Times are seconds, rates bytes per second.

    An attribute is the key of its name, and ``txmux.rules.reading.backend.KEYS`` says what that means.

    Attributes:
        servers: The lines of ``server =``.
        transport: What its servers are spoken to by.
        more: The values of the keys of features, by name.
        author: The user who has written it, if that is neither root nor the operator.
        tls: ``tls =`` and the keys for that; ``None`` is not at all.
        section: Its section of a file; `NOWHERE` if it was made in Python.
    """

    name: str
    servers: tuple[Server, ...]
    transport: Transport = attrs.field(init=False, eq=False, repr=False)
    balance: Balance = "round-robin"
    slow_start: float = 0.0
    allow_names: AllowedNames | None = None
    allow_networks: Reachable | None = None
    deny_names: AllowedNames | None = None
    deny_networks: Reachable | None = None
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    proxy_tlvs: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    mptcp: bool = False
    connect_timeout: float = 5.0
    retries: int = 2
    idle_timeout: float = attrs.field()
    max_duration: float | None = None
    check: Check | None = None
    end_on_down: Literal["no", "yes", "backup"] = "no"
    eject: Ejection | None = attrs.field(factory=partial(Ejection, lone=False))
    resolve: Resolve = attrs.field(factory=Resolve)
    resolvers: tuple[tuple[str, int], ...] = ()
    tls: ServerTLS | None = None
    max_connections: int = 0
    queue: int = 0
    hold: float = 0.0
    hold_limit: int = 1000
    upload_rate: int | None = None
    download_rate: int | None = None
    fallback: Outcome = Refusal.CLOSE
    unanswered_timeout: float = 30.0
    answers: int = 0
    more: Mapping[str, Any] = attrs.field(default=NOTHING_MORE, hash=False)
    author: int | None = None
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The facts that its servers depend on: ``sni``, ``host``."""
        return tuple(
            dict.fromkeys(
                NAMES[placeholder] for server in self.servers if (placeholder := server.placeholder)
            )
        )

    @property
    def proxy(self) -> ForwardProxy | None:
        return next(
            (value for value in self.more.values() if isinstance(value, ForwardProxy)), None
        )

    @property
    def dialled(self) -> tuple[Server, ...]:
        """The servers that this machine itself connects to: those, or the proxy."""
        proxy = self.proxy
        return self.servers if proxy is None else (proxy.server,)

    def allows(self, name: str) -> bool:
        """Return whether clients may choose a name, or an IP address in the place of one."""
        allowed, denied = self.allow_names, self.deny_names
        is_denied = denied is not None and denied.allow(name)
        return allowed is not None and allowed.allow(name) and not is_denied

    def reaches(self, address: IPAddress) -> bool:
        """Return whether what clients choose may be at an IP address; IPv4 inside IPv6 is denied like IPv4."""
        allowed, denied = self.allow_networks, self.deny_networks
        if allowed is None and self.allow_names is not None:  # not by `or`: `public` alone is false
            allowed = _PUBLIC
        if denied is not None and any(form in denied for form in (address, *embedded(address))):
            return False
        return allowed is None or address in allowed

    @idle_timeout.default
    def _usual_idle_timeout(self) -> float:
        return 180.0 if self.transport is Transport.UDP else 3600.0

    @transport.default
    def _transport_of_servers(self) -> Transport:
        for server in self.servers:
            # A program may write a text, or none but that of a server: see `txmux.rules.embedding`.
            text = server if isinstance(server, str) else server.kind or server.text
            if text.partition(":")[0] == "udp":
                return Transport.UDP
        return Transport.TCP


Outcome = Backend | Handover | InProcess | Refusal
"""The outcome of a decision."""


def backends_of(outcomes: Iterable[Outcome | None]) -> list[Backend]:
    """Return the backends of outcomes, with their fallbacks, each once."""
    backends: dict[int, Backend] = {}
    waiting = list(outcomes)
    for outcome in waiting:
        if isinstance(outcome, Backend) and id(outcome) not in backends:
            backends[id(outcome)] = outcome
            waiting.append(outcome.fallback)
    return [*backends.values()]


def blamed(
    section: Section,
    key: str,
    message: str,
    outcomes: Iterable[Outcome | None],
    wrong: Outcome | None,
    owners: Mapping[int, str],
) -> Iterator[Problem]:
    """Yield a problem of one of the outcomes of a section: of a unit's backend, if the operator comes to it only over such.

    A unit that names another unit's is wrong for that, or has one of its own, and the other will lose the name.
    """
    owner, firsts = owners.get(id(section)), []
    for outcome in outcomes:
        led = [
            (its, owners.get(id(its.section)) not in {None, owner})
            for its in backends_of([outcome])
        ]
        if any(its is wrong for its, _ in led):
            firsts.append(next(its for its in led if its[0] is wrong or its[1]))
    if not firsts or not all(is_of_other for _, is_of_other in firsts):
        yield section.problem(message, key)
    elif owner is None:
        yield firsts[0][0].section.problem(f"as {key!r} of [{section.header}]: {message}")
