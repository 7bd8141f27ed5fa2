"""Where and how a check asks a server: at its own port or another, with TLS or without, and with which header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from txmux.backends.health.checking import Checking, with_header
from txmux.backends.health.probes import probe
from txmux.rules.model import ServerTLS
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Command, Header

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from txmux.backends.connect.dial import Dial
    from txmux.backends.health.checking import Finding
    from txmux.backends.pool.member import Member
    from txmux.rules.model import Backend, Check, Server

    Wrap = Callable[[Any, str], Any]


class ProbeTarget:
    """Asks the servers of a backend as the rules say.

    At the port of clients a check begins as a connection of a client does, with header and TLS. At another port there
    is another service, which gets neither unless the rules say so.

    Args:
        backend: Says which header there is.
        wrap: Makes of a client factory one that speaks TLS to a server of a name, such as `BackendTLS.wrap`;
            ``None`` if clients' connections speak none.
    """

    def __init__(self, backend: Backend, check: Check, wrap: Wrap | None) -> None:
        self._check = check
        self._header = "off" if check.port else backend.proxy_protocol
        self._wrap = wrap
        speaks_tls = wrap is not None and not check.port if check.tls is None else check.tls
        if not speaks_tls:
            self._wrap = None
        elif wrap is None:
            from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - OpenSSL takes a while

            # Clients see to the certificate themselves. A check says nothing that is secret.
            self._wrap = BackendTLS(ServerTLS(), verified=False).wrap

    def make(
        self, clock: IReactorTime, member: Member, on_found: Callable[[Finding], None]
    ) -> Checking:
        """Make a check that has not begun.

        Args:
            clock: For the time limit.
            member: Which is asked.
            on_found: Called once, unless the check is cut off before.
        """
        check, target = self._check, self._target(member)
        asked = probe(check, member.name, target.port, tls=self._wrap is not None)
        if target.kind == "udp" and self._header == "v2":
            header = encode_v2(Header(Command.LOCAL), datagrams=True)
            asked = attrs.evolve(asked, request=header + asked.request)
        return Checking(clock, asked, check.timeout, on_found)

    def begin(self, checking: Checking, dial: Dial, member: Member) -> None:
        """Begin a check; something may have been found before this returns."""

        def wrapped(factory: Any) -> Any:
            if self._wrap is not None:
                factory = self._wrap(factory, self._check.sni or member.name)
            is_udp = self._target(member).kind == "udp"  # where it is in the same datagram
            return factory if is_udp else with_header(factory, self._header)

        checking.start(dial, self._target(member), wrapped)

    def _target(self, member: Member) -> Server:
        port = self._check.port
        target = member.target
        if not port:
            return target
        # What is beside a server of UDP is asked by TCP.
        kind = "tcp" if target.kind == "udp" else target.kind
        return attrs.evolve(target, port=port, kind=kind)
