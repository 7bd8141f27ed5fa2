"""Servers that each client chooses, by its name or by the address that it asked for, as far as the rules allow it."""

import re
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import attrs
from twisted.internet.defer import Deferred

from txmux.access.per_source import source_of
from txmux.backends.names.cache import KnownName, NameCache
from txmux.backends.pool.member import Member
from txmux.classes import define
from txmux.rules.model import LOCAL, Backend
from txmux.telemetry.reasons import ConnectFailure
from txmux.transport import IPAddress, embedded, unmapped
from txmux.wire.proxyprotocol.header import Address

_LONGEST = 253  # characters of a host name (RFC 1035, section 2.3.4)
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")
_LIKE_ADDRESS = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*|localhost)")
_LITERALS = 1000
_DIALLED: Mapping[IPAddress, IPAddress] = {
    IPv4Address(0): IPv4Address("127.0.0.1"),
    IPv6Address(0): IPv6Address("::1"),
}
"""Where the system connects to instead of the unspecified address (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5.2)."""
_FRESH = 1.0  # seconds for which it is cached whether an address is one of this machine


class ClientTarget(NamedTuple):
    """What a client has asked for.

    Attributes:
        decided: What its route was decided by: `Client.decided` or `Flow.decided`, and nothing else.
        host: The IP address that it has connected to; empty for a UNIX socket.
        port: The port that it has connected to.
    """

    decided: Mapping[str, str]
    host: str
    port: int


class Denial(NamedTuple):
    """Why a client gets no server, and what the log shows as its server."""

    cause: ConnectFailure
    server: str | None


class Unknown(NamedTuple):
    """A name that has to be looked up."""

    name: str


@define(eq=False)
class _Candidate:
    address: IPAddress
    member: Member
    is_own: bool = False
    own_until: float = 0.0


class Destinations:
    """Chooses servers of one backend.

    Args:
        is_own_address: Whether this service itself listens at an IP address and port.
        seconds: The time.

    Attributes:
        needs_local: Whether the address or the port that a client has connected to is asked for.
        avoids_own: Whether what is chosen never leads to this service.
    """

    def __init__(
        self,
        backend: Backend,
        cache: NameCache,
        is_own_address: Callable[[str, int], bool],
        seconds: Callable[[], float],
    ) -> None:
        self._backend, self._cache = backend, cache
        self._is_own_address, self._seconds = is_own_address, seconds
        by_name = any(server.placeholder for server in backend.servers)
        # Hops are only counted for TCP.
        has_public = backend.allow_networks is None or backend.allow_networks.has_public
        self.avoids_own = by_name and (has_public or backend.servers[0].kind == "udp")
        self._is_proxied = backend.proxy is not None
        self._literals: dict[str, KnownName] = {}
        self.needs_local = any(
            server.host == LOCAL or not server.port for server in backend.servers
        )

    def choose(
        self, template: Member, target: ClientTarget, tried: Collection[Member] = ()
    ) -> Member | Denial | Unknown:
        """Choose an allowed address of what a client asks for that has not been tried; `template` is the server of the rules."""
        server = template.server
        port = server.port or target.port
        if not server.placeholder:
            name = target.host if server.host == LOCAL else server.host
            if not (name and port):
                return Denial("no-name", None)
        else:
            name = server.name_for(target.decided)
            if not (name and port):
                return Denial("no-name", None)
            if "%" in name or not self._backend.allows(name):
                return Denial("name-denied", server.at(name, port).text)
        # A proxy looks names up itself, and may know others than the name servers of this machine.
        known = self._cache.known
        resolved = None if self._is_proxied else known(self._backend.resolvers, name)
        resolved = resolved or self._literal(name)
        if resolved is None:
            is_name = not server.placeholder or (len(name) <= _LONGEST and _NAME.fullmatch(name))
            unknown = self._unknown(template, name, port, tried)
            return unknown if is_name else Denial("name-denied", server.at(name, port).text)
        if not resolved.addresses:
            return Denial("no-server", server.at(name, port).text)
        return self._allowed(resolved, template, name, port, tried)

    def _unknown(
        self, template: Member, name: str, port: int, tried: Collection[Member]
    ) -> Member | Denial | Unknown:
        if not self._is_proxied:
            return Unknown(name)
        # The proxy looks it up, and many programs take a number in any form for an IPv4 address (inet_aton(3)).
        if _LIKE_ADDRESS.fullmatch(name):
            return Denial("name-denied", template.server.at(name, port).text)
        member = self._member(template, name, port, name)
        if any(other.target.text == member.target.text for other in tried):
            return Denial("no-server", None)
        return member

    def look_up(self, unknown: Unknown, client: Address | None) -> Deferred[None]:
        """Look a name up for a client; without an address, it shares the turns of all such clients."""
        source = None if client is None else source_of(client.host)
        backend = self._backend
        return self._cache.look_up(backend.resolvers, unknown.name, source, backend.author)

    def adopted(self, template: Member, target: str) -> Member:
        """Return the server of a connection that another process has made, from what its log line says."""
        host, _, port = target.removeprefix("udp:").rpartition(":")
        return self._member(template, host.strip("[]"), int(port), "")

    def _literal(self, name: str) -> KnownName | None:
        """Return what an IP address stands for; ``None`` if it is a name."""
        literal = self._literals.get(name)
        if literal is None and (":" in name or name[-1:].isdigit()):
            try:
                address = unmapped(ip_address(name))
            except ValueError:
                return None
            if len(self._literals) >= _LITERALS:
                self._literals.clear()
            literal = self._literals[name] = KnownName((address,), 0.0)
        return literal

    def _allowed(
        self, resolved: KnownName, template: Member, name: str, port: int, tried: Collection[Member]
    ) -> Member | Denial:
        key = self, template.server.text, port
        candidates: list[_Candidate] | None = resolved.candidates.get(key)
        if candidates is None:
            candidates = [
                _Candidate(address, self._member(template, str(address), port, name))
                for address in map(_dialled, resolved.addresses)
            ]
            if template.server.port:  # a client may choose among all ports
                resolved.candidates[key] = candidates
        before = {member.target.text for member in tried} if tried else ()
        count, start = len(candidates), resolved.turn
        resolved.turn += 1
        denied = None
        for number in range(start, start + count):
            candidate = candidates[number % count]
            if candidate.member.target.text in before:
                continue
            if self._may_be(candidate):
                return candidate.member
            denied = candidate.member.target.text
        return Denial("address-denied", denied) if denied else Denial("no-server", None)

    def _may_be(self, candidate: _Candidate) -> bool:
        if not self._backend.reaches(candidate.address):
            return False
        if not self.avoids_own:
            return True
        now = self._seconds()
        if now >= candidate.own_until:
            port = candidate.member.target.port
            ways = candidate.address, *embedded(candidate.address)
            candidate.is_own = any(self._is_own_address(str(address), port) for address in ways)
            candidate.own_until = now + _FRESH
        return not candidate.is_own

    def _member(self, template: Member, host: str, port: int, name: str) -> Member:
        # Its connections count for the server of the rules.
        return attrs.evolve(template, target=template.server.at(host, port), name=name)


def _dialled(address: IPAddress) -> IPAddress:
    """Return the address that a connection to this one goes to."""
    address = unmapped(address)
    return _DIALLED.get(address, address)
