"""A stage: the request of a client that asks for a tunnel, which is answered here as by a proxy."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs
from twisted.internet.defer import Deferred
from typing_extensions import override

from txmux.access.per_source import source_of
from txmux.rules.model import Refusal
from txmux.tcp.stage import Client, Stage
from txmux.tcp.transitions import Detected, Outcome, TunnelOpened, TurnedAway
from txmux.wire.facts import printable
from txmux.wire.http2_opening import PREFACE
from txmux.wire.tunnel.dialog import (
    Asked,
    Failure,
    Login,
    Refused,
    Reply,
    TunnelDialog,
    kind_of,
)

if TYPE_CHECKING:
    from txmux.client.configuration import CompiledRoute, RuleLayer
    from txmux.telemetry.reasons import EndReason
    from txmux.telemetry.record import ConnectionState

_FAILURES: Mapping[EndReason, Failure] = {
    "denied": "denied",
    "no-route": "denied",
    "name-denied": "denied",
    "address-denied": "denied",
    "connect-refused": "refused",
    "connect-timeout": "timeout",
    "no-server": "host",
    "no-name": "host",
    "limit": "busy",
}
_BY_NUMBER: Mapping[int, Failure] = {errno.ENETUNREACH: "network", errno.EHOSTUNREACH: "host"}


@attrs.define(eq=False)
class Tunnel:
    """What a client has asked for, and whether it has its answer.

    Attributes:
        facts: For the access log; what is inside of the tunnel does not replace them.
        port: The port that is asked for.
        last: The answer, if the request itself is refused.
        number: The system's number of the last failure to connect.
    """

    dialog: TunnelDialog
    facts: dict[str, str]
    port: int = 0
    last: bytes | None = None
    number: int = 0
    is_answered: bool = False

    def grant(self, client: Client) -> None:
        """Tell the client that the tunnel is open, unless it knows."""
        if not self.is_answered:
            self.is_answered = True
            answer = self.dialog.granted
            client.record.bytes_out += len(answer)
            client.transport.write(answer)

    def refusal(self, reason: EndReason) -> bytes:
        if self.last is not None:
            return self.last
        failure = _BY_NUMBER.get(self.number) if reason == "connect-refused" else None
        return self.dialog.refusal(failure or _FAILURES.get(reason, "general"))


@attrs.define(eq=False, slots=False)
class Tunnelling(Stage):
    """Waits for the whole request, and for the thread that checks a password.

    Where no byte of the client can change the decision, the answer is given once a server is connected, or cannot be.
    Otherwise it is given now, since a client that waits for it says nothing before.
    """

    state: ClassVar[ConnectionState] = "tunnelling"

    _route: CompiledRoute
    _inside: RuleLayer
    _judging: Deferred[bool] | None = attrs.field(default=None, init=False)

    @override
    def begin(self) -> Outcome | None:
        client = self._client
        if client.received.startswith(PREFACE):
            return TurnedAway(Refusal.REJECT, "denied")
        kind = kind_of(client.received)
        self._dialog = TunnelDialog(kind, wants_login=self._route.users is not None)
        self._tunnel = client.tunnel = Tunnel(self._dialog, {"tunnel": kind})
        client.record.facts = {**client.record.facts, "tunnel": kind}
        self.wait(client.configuration.settings.detect_timeout, self._timed_out)
        return self.on_data()

    @override
    def on_data(self) -> Outcome | None:
        client, dialog = self._client, self._dialog
        dialog.received += client.received
        client.received = b""
        if len(dialog.received) > client.configuration.settings.peek_limit:
            return self._refuse("the request is longer than peek_limit", dialog.complaint(431))
        return None if self._judging is not None else self._proceed()

    @override
    def on_finished(self) -> Outcome | None:
        return None if self._judging is not None else self._proceed()

    def _proceed(self, answer: bool | None = None) -> Outcome | None:  # noqa: FBT001 - as `Generator.send`
        event = self._dialog.proceed(answer)
        while isinstance(event, Reply):
            self._client.record.bytes_out += len(event.data)
            self._client.transport.write(event.data)
            event = self._dialog.proceed()
        if isinstance(event, Login):
            return self._check(event)
        if isinstance(event, Asked):
            return self._asked(event)
        if isinstance(event, Refused):
            return self._refuse("the request is not allowed, or is none", event.data)
        if self._client.has_finished:
            return self._refuse("the request is incomplete", self._dialog.complaint(400))
        return None

    def _check(self, login: Login) -> Outcome | None:
        users, address = self._route.users, self._client.address
        assert users is not None  # noqa: S101 - otherwise nobody is asked to log in
        judged = users.check(source_of(address.host) if address else -1, login)
        if judged is None:
            return self._refuse("too many logins wait", self._dialog.refusal("busy"))
        if isinstance(judged, bool):
            return self._proceed(judged)
        self._judging = judged
        judged.addCallback(self._judged)
        return None

    def _judged(self, answer: bool) -> None:  # noqa: FBT001 - of a Deferred
        if self._judging is not None:  # otherwise the connection has left this stage
            self._judging = None
            self._client.advance(self._proceed(answer))

    def _asked(self, asked: Asked) -> Outcome:
        client, tunnel, dialog = self._client, self._tunnel, self._dialog
        client.received, dialog.received = dialog.received, b""
        tunnel.port = asked.port
        tunnel.facts |= {"host": asked.host, "port": str(asked.port)}
        if dialog.user:
            tunnel.facts["user"] = printable(dialog.user)
        client.record.facts = {**client.record.facts, **tunnel.facts}
        address, tls = client.address, client.agreed_tls
        decision = self._inside.detector.start_detection(
            address.host if address else None,
            client.record.time,
            None if tls is None else tls.found,
        ).decide_before_bytes()
        if decision is None or (decision.route is not None and decision.route.is_outer):
            tunnel.grant(client)
            return TunnelOpened(self._inside)
        return Detected(self._inside, decision.route)

    def _refuse(self, why: str, answer: bytes) -> Outcome:
        self._tunnel.last = answer
        self._client.record.facts = {**self._client.record.facts, "tunnel_error": why}
        return TurnedAway(Refusal.REJECT, "denied")

    def _timed_out(self) -> Outcome:
        return self._refuse("no request within detect_timeout", self._dialog.complaint(408))

    @override
    def leave(self) -> None:
        super().leave()
        self._judging = None
