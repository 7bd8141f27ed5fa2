"""A stage: the client's first bytes are collected until they decide its route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override

from txmux.classes import define
from txmux.client.configuration import CompiledRoute, RuleLayer, Silent
from txmux.detection.detector import Decision
from txmux.interfaces import Exchange, Peeked
from txmux.net.relay.kernel import FULL
from txmux.net.sockets.poller import READ
from txmux.net.sockets.transport import SocketTransport
from txmux.rules.model import Refusal
from txmux.tcp.fast_path import CLIENT_GONE, DONT_WAIT
from txmux.tcp.stage import Client, Stage, Step
from txmux.tcp.transitions import Detected, Outcome, Routed, TurnedAway
from txmux.telemetry.record import ConnectionState
from txmux.transport import IPAddress
from txmux.wire.preamble import AnsweredRequest, HelloOpener, InnerHello

_CLOSE = Silent(Refusal.CLOSE)  # the destination of silent clients if the rules do not say
_TLS = 0x16  # the first byte of a record with a hello


def enter(client: Client, layer: RuleLayer, began_at: float | None = None) -> Step | None:
    if client.transport is not None:
        return Peeking(client, layer, began_at)
    path = client.path
    if layer is not path.top:
        client.detection_began, client.fast_layer = path.seconds(), path.inside(layer)
    if not client.fast_layer.decides_at_once:
        return make_stage(client) if client.state == "introduction" else Peeking(client, layer)
    client.state = "peeking"
    return (_detect(client) if client.received else None) or read(client)


def make_stage(client: Client) -> Peeking:
    return Peeking(client, client.fast_layer.layer, client.detection_began)


def read(client: Client) -> Step | None:
    path = client.path
    try:
        data = client.socket.recv(FULL, DONT_WAIT)
    except BlockingIOError:
        pass
    except OSError:
        return CLIENT_GONE
    else:
        if not data:  # without any byte it was a port scan or a load balancer's health check
            return make_stage(client) if client.received else CLIENT_GONE
        client.record.bytes_in += len(data)
        client.last_received_at = path.seconds()
        client.received += data
        step = _detect(client)
        if step is not None:
            return step
    if not (path.can_wait if client.received else client.fast_layer.can_be_silent):
        return make_stage(client)
    path.poller.watch(client.socket.fileno(), READ, client.socket_ready)
    return None


def _detect(client: Client) -> Step | None:
    path, fast_layer, received = client.path, client.fast_layer, client.received
    if path.openings and received[0] == _TLS and fast_layer is path.top_layer:
        return make_stage(client)
    detection, detector = client.detection, fast_layer.detector
    decision = detector.decide_at_once(Peeked(received)) if detection is None else None
    if decision is None:
        if detection is None:
            if detector.may_need_answers(received):
                return make_stage(client)
            address = client.address if fast_layer.needs_address else None
            detection = client.detection = client.start_detection(
                fast_layer.layer, address.host if address else None
            )
        decision = detection.feed(received)
        if decision is None:
            return None
        client.detection = None
    record, client.decided = client.record, decision.facts
    record.facts = {**record.facts, **decision.facts} if record.facts else decision.facts
    return Detected(fast_layer.layer, decision.route)


def due_at(client: Client) -> float:
    path = client.path
    return client.detection_began + (
        path.detect_timeout if client.received else client.fast_layer.silent_timeout
    )


@define(eq=False, slots=False)
class Peeking(Stage):
    """Waits for bytes, for `detect_timeout` from when that has begun."""

    state: ClassVar[ConnectionState] = "peeking"
    only_previews: ClassVar[bool] = True

    layer: RuleLayer
    _began_at: float | None = None
    _answers = 0  # given to the client
    _since = 0.0  # in milliseconds after the client was accepted
    _has_own_time = False  # while the client is silent
    _dry_run: CompiledRoute | None = None  # would have taken it by its silence
    _openers: Sequence[HelloOpener] = ()  # until the hello is whole

    @override
    def begin(self) -> Step | None:
        # In this order: a client that no route looks at is routed at once; then the client has until `silent.after` to send
        # something, or else until `detect_timeout`; its first bytes may be here already.
        client, layer, began_at = self._client, self.layer, self._began_at
        address = client.address if layer.depends_on_client else None
        host = address.host if address else None
        self._detection = detection = client.start_detection(layer, host)
        if layer is client.configuration.top:
            ours = client.configuration
            limit, counts = ours.settings.peek_limit, ours.counts
            self._openers = [opening.reader(limit, counts) for opening in ours.openings]
        by_route = self._silence(host) if layer.silent_routes.items else None
        self._silent = silent = by_route or layer.silent_for(host) or _CLOSE
        can_decide = layer.awaits_bytes or layer.detector.takes_any_client or detection.can_decide()
        if silent is _CLOSE and not can_decide:
            self._silent = silent = Silent(layer.default)
        if layer.server_first or (
            not can_decide
            and not isinstance(layer.default, Refusal)
            and silent.destination == layer.default
            and not detection.has_routes_for_client()
        ):
            return Routed(layer.default, "no-route")
        if silent.after is not None and not client.received:
            self._since = 0.0 if layer is client.configuration.top else client.elapsed_ms()
            self._has_own_time = True
            self._wait_until(silent.after)
            return None
        timeout = client.configuration.settings.detect_timeout
        if began_at is None:
            # If the client's first bytes are here and decide, nothing has to be waited for. Whatever is wrapped around a socket,
            # as TLS is, must see all bytes of it first.
            transport = client.transport
            first = transport.take_received() if isinstance(transport, SocketTransport) else b""
            outcome = self.receive(first) if first else None
            if client.preambles and outcome is None:
                # Behind a tunnel, it may have said more before the answer, and even have half-closed.
                outcome = self.on_data() if client.received and not first else None
                outcome = self.on_finished() if outcome is None and client.has_finished else outcome
            if outcome is None:
                self.wait(timeout, self.on_timeout)
            return outcome
        outcome = self.on_data() if client.received else None
        if outcome is not None:
            return outcome
        left = client.time_left(timeout + began_at - client.accepted_at)
        self.wait(left, self.on_timeout)
        return None if left else self.on_timeout()

    def _silence(self, host: IPAddress | None) -> Silent | None:
        """Return the route that the client comes to by saying nothing, and note one that only counts such clients.

        Those of other units are behind the listener's own lines.
        """
        client = self._client
        for route in self.layer.silent_routes.items:
            if not self._detection.serves(route):
                continue
            if route.is_of_unit and self.layer.silent_for(host):
                break
            if not route.dry_run:
                after = route.silent_after(client.configuration.settings)
                return Silent(route.destination or Refusal.CLOSE, after=after, route=route)
            self._dry_run = self._dry_run or route
        return None

    def _wait_until(self, seconds: float) -> None:
        self.wait(max(0.0, seconds - self._passed()), self.on_timeout)

    def _passed(self) -> float:
        return (self._client.elapsed_ms() - self._since) / 1000

    @override
    def on_data(self) -> Outcome | None:
        if self._has_own_time:
            # It is not silent: it has `detect_timeout`, counted like `silent.after`, or what is left of that if it is longer.
            self._has_own_time = False
            usual = self._client.configuration.settings.detect_timeout
            if usual > self._passed():
                self._wait_until(usual)
        if self._openers:
            outcome = self._open_hello()
            if outcome is not None or self._openers:
                return outcome
        decision = self._detection.feed(self._client.received)
        if self._detection.answered:
            self._answer(self._detection.answered)
        return None if decision is None else self._decided(decision)

    def _open_hello(self, *, last: bool = False) -> Outcome | None:
        """Put an inner hello in the place of the outer one, as soon as that is whole."""
        client = self._client
        while self._openers:
            inner = self._openers[0].read(client.received, last=last)
            if inner is None:
                break
            self._openers = self._openers[1:]
            client.record.note(inner.facts)
            if inner.illegal is not None:
                self.send(inner.illegal.alert)
                return TurnedAway(Refusal.CLOSE, "tls-failed")
            if inner.second is not None:
                client.preambles += (inner,)
                client.received = inner.stream
        return None

    def _answer(self, answered: tuple[Exchange, ...]) -> None:
        for exchange in answered[self._answers :]:
            self.send(exchange.answer)
        self._answers = len(answered)

    @override
    def on_finished(self) -> Outcome | None:
        if self._client.received:
            return self._finish()
        # It was a port scan, which opens no connection to a backend.
        return TurnedAway(Refusal.CLOSE, "client-gone")

    def on_timeout(self) -> Outcome | None:
        client, silent, dry = self._client, self._silent, self._dry_run
        if client.received:
            return self._finish()
        if dry is not None and dry.silent_after(client.configuration.settings) <= self._passed():
            dry.counts.would_have_matched()
            self.layer.detector.would_have_taken[dry.name] += 1
            client.record.note(dry_run=dry.name)
        if silent.route is None:
            return Routed(silent.destination, "silent")
        return Detected(self.layer, silent.route, "silent")

    def _finish(self) -> Outcome | None:
        decision = None
        if self._openers:
            self._open_hello(last=True)
            decision = self._detection.feed(self._client.received)
        client, layer = self._client, self.layer
        client.is_request_cut = (
            bool(layer.hello_readers.items)
            and layer.detector.may_need_answers(client.received)
            and self._detection.needs_more(layer.hello_readers.items)
        )
        decided = self._decided(decision or self._detection.finish())
        # If it goes by the outer name, that may not have decided, either.
        return decided or self._decided(self._detection.finish())

    def _go_by_outer_name(self, inner: InnerHello) -> Outcome | None:
        """Take the outer hello, since the inner name leads to what cannot confirm to the client that it has seen that."""
        client = self._client
        client.end_layer()
        client.received = inner.as_received(client.received)
        client.record.note(inner.outer)
        address = client.address
        self._detection = client.start_detection(self.layer, address.host if address else None)
        return self.on_data()

    def _decided(self, decision: Decision[CompiledRoute]) -> Outcome | None:
        client = self._client
        for preamble in client.preambles:
            default = client.configuration.settings.default
            if isinstance(preamble, InnerHello) and not preamble.fits(decision.route, default):
                return self._go_by_outer_name(preamble)
        answered = decision.answered
        client.note_decided(decision.facts)
        if answered:
            client.preambles += tuple(
                AnsweredRequest(exchange) for exchange in answered if exchange.repeat
            )
            client.received = client.received[sum(len(exchange.request) for exchange in answered) :]
        return Detected(self.layer, decision.route)
