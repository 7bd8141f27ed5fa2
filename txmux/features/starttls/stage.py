"""A stage: a dialogue in the clear until the client's TLS begins, by STARTTLS of its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from typing_extensions import override

from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.client.configuration import Configuration
from txmux.features.starttls.protocols import begun
from txmux.rules.feature import StageMaker
from txmux.rules.model import Listener, Refusal
from txmux.tcp.connector import BackendConnector
from txmux.tcp.stage import Client, Stage, Step
from txmux.tcp.transitions import Outcome, TurnedAway
from txmux.wire.facts import printable
from txmux.wire.hello.records import HANDSHAKE

if TYPE_CHECKING:
    from txmux.features.starttls.dialogue import ClientDialogue
    from txmux.telemetry.reasons import ConnectFailure
    from txmux.telemetry.record import ConnectionState

_BANNER_WAIT = 1.0  # seconds that a server has to greet, whose banner is not known yet


@define(eq=False, slots=False)
class StartTLS(Stage):
    """Waits for the command that starts TLS, and for the first byte of that. No byte before reaches a server.

    The first client of a process waits until the first server has greeted, if its banner is to be shown.
    """

    state: ClassVar[ConnectionState] = "starttls"

    _protocol: str
    _banner: str
    _then: Step
    _connector: BackendConnector | None = attrs.field(default=None, init=False)
    _upstream: Upstream | None = attrs.field(default=None, init=False)
    _dialogue: ClientDialogue | None = attrs.field(default=None, init=False)  # once it is greeted

    @override
    def begin(self) -> Step | None:
        client = self._client
        settings, clear = client.configuration.settings, begun(self._protocol)
        client.record.note(starttls=self._protocol)
        # A connection of this process itself may be the one by which another client's banner is learnt.
        may_loop = client.runtime.loop_detector.hops_of(client.transport)
        if clear.first and not self._banner and not may_loop:
            self._upstream = _first_upstream(client.configuration)
        upstream = self._upstream
        if upstream is None or upstream.greeting:
            return self._greet()
        self.wait(min(_BANNER_WAIT, settings.detect_timeout / 2), self._greet)
        self._connector = BackendConnector(client, upstream, self._connected, self._learnt)
        self._connector.requests = clear.server_steps(upstream.note_greeting, in_clear=True)
        self._connector.start()
        return None

    @override
    def leave(self) -> None:
        super().leave()
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.cancel()

    def _connected(self, server: ProxyClient, member: Member) -> None:
        assert self._upstream is not None  # noqa: S101 - it was connected
        server.give_up()
        self._upstream.pool.released(member)
        self._learnt()

    def _learnt(self, *_: ConnectFailure) -> None:
        self._connector = None
        self._client.advance(self._greet())

    def _greet(self) -> Step | None:
        self.leave()
        client, upstream = self._client, self._upstream
        banner = self._banner or ("" if upstream is None else upstream.greeting)
        self._dialogue = dialogue = begun(self._protocol, banner)
        if upstream is not None:
            upstream.greeting = dialogue.banner  # of a server that is away, too: until it greets
        timeout = client.configuration.settings.detect_timeout
        self.wait(client.time_left(timeout), self._on_timeout)
        self.send(dialogue.first)
        return self.on_data() if client.received else None

    @override
    def on_data(self) -> Step | None:
        client = self._client
        dialogue, settings = self._dialogue, client.configuration.settings
        if dialogue is None:
            is_long = len(client.received) > settings.peek_limit
            return self._refuse("it did not wait for the greeting") if is_long else None
        if dialogue.then == "tls" and client.received.startswith(HANDSHAKE):
            client.preambles += (dialogue,)
            return self._then
        data, client.received = client.received, b""
        self.send(dialogue.receive(data))
        if dialogue.then != "end":
            return None
        return self._refuse(dialogue.problem) if dialogue.problem else self.on_finished()

    @override
    def on_finished(self) -> Outcome:
        return TurnedAway(Refusal.CLOSE, "client-gone")

    def _on_timeout(self) -> Outcome:
        return self._refuse("no TLS began within detect_timeout")

    def _refuse(self, problem: str) -> Outcome:
        client = self._client
        client.received = b""
        client.record.note(tls_error=printable(problem))
        return TurnedAway(Refusal.CLOSE, "tls-failed")


class StartTLSMaker(StageMaker):
    """Makes the stages of a listener's clients."""

    def __init__(self, listener: Listener) -> None:
        self._protocol = listener.more["starttls"]
        self._banner = listener.more.get("starttls_banner", "")

    @override
    def __call__(self, client: Client, then: Step, *of: Any) -> StartTLS:
        return StartTLS(client, self._protocol, self._banner, then)


def _first_upstream(configuration: Configuration) -> Upstream | None:
    """Return the backend that is named first; ``None`` if its server depends on the client."""
    routes = [route for layer in configuration.layers for route in layer.detector.routes]
    named = (*(route.destination for route in routes), configuration.top.default)
    first = next((outcome for outcome in named if isinstance(outcome, Upstream)), None)
    return None if first is None or first.destinations is not None else first
