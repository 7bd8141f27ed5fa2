"""The state ``peeking``: the client's first bytes are collected until they decide its route, for `detect_timeout`."""

from __future__ import annotations

from collections.abc import Sequence

from txmux.classes import define
from txmux.client.configuration import CompiledRoute, RuleLayer, Silent
from txmux.detection.detector import Decision
from txmux.interfaces import Peeked
from txmux.rules.model import Refusal
from txmux.tcp.fast_path import ROUNDING
from txmux.tcp.stage import Client, Step, gone, send
from txmux.tcp.transitions import Detected, Outcome, Routed, TurnedAway
from txmux.wire.preamble import AnsweredRequest, HelloOpener, InnerHello

_CLOSE = Silent(Refusal.CLOSE)  # the destination of silent clients if the rules do not say
_TLS = 0x16  # the first byte of a record with a hello


@define(eq=False)
class CloserLook:
    """What is known of a client that its first bytes alone do not decide."""

    silent: Silent  # where it goes if it says nothing …
    until: float  # … by then, on the runtime's clock; or how long more bytes are waited for
    dry_run: CompiledRoute | None  # would have taken it by its silence
    openers: Sequence[HelloOpener]  # until the hello is whole
    is_routed: bool  # whether no byte can change where it goes
    answers: int = 0  # given to it


def enter(client: Client, layer: RuleLayer) -> Step | None:
    path, client.state = client.path, "peeking"
    if layer is not path.top or client.preambles:
        client.detection_began, client.fast_layer = path.seconds(), path.inside(layer)
        if client.preambles:
            client.closer = _look_closer(client)
    if not client.fast_layer.decides_at_once:
        client.closer = client.closer or _look_closer(client)
        if client.closer.is_routed:
            client.use_transport()
            client.closer = client.detection = None
            return Routed(layer.default, "no-route")
    return (data(client, b"") if client.received else None) or client.read()


def data(client: Client, data: bytes) -> Step | None:
    record, detection = client.record, client.detection
    if data:
        record.bytes_in += len(data)
        client.last_received_at = client.path.seconds()
        client.received += data
    received = client.received
    fast_layer = client.fast_layer
    if detection is None:
        if client.path.openings and received[0] == _TLS and fast_layer is client.path.top_layer:
            return _detect_closely(client)
        decision = fast_layer.detector.decide_at_once(Peeked(received))
        if decision is None:
            if fast_layer.detector.may_need_answers(received):
                return _detect_closely(client)
            detection = client.detection = client.start_detection(fast_layer.layer)
    elif client.closer is not None:
        return _detect_closely(client)
    else:
        decision = None
    if decision is None:
        decision = detection.feed(received)
        if decision is None:
            return None
        client.detection = None
    if record.facts:
        client.decided = {**client.decided, **decision.facts}
        record.facts = {**record.facts, **decision.facts}
    else:
        client.decided = record.facts = decision.facts
    return Detected(fast_layer.layer, decision.route)


def end(client: Client) -> Step | None:
    if not client.received:
        return gone(client)
    if client.transport is None:
        client.use_transport()  # which keeps the end, and reports it again
        return None
    return finish(client)


def due_at(client: Client) -> float:
    closer: CloserLook | None = client.closer
    if closer is not None:
        return closer.until
    path = client.path
    return client.detection_began + (
        path.detect_timeout if client.received else client.fast_layer.silent_timeout
    )


def due(client: Client) -> Step | None:
    closer = client.closer
    if closer is None:  # until now it had as little time as any silent one
        client.closer = _look_closer(client)
        return client.await_due()
    if client.received:
        return finish(client)
    silent, dry = closer.silent, closer.dry_run
    passed = client.runtime.clock.seconds() - client.detection_began + ROUNDING
    if dry is not None and dry.silent_after(client.configuration.settings) <= passed:
        dry.counts.would_have_matched()
        client.fast_layer.detector.would_have_taken[dry.name] += 1
        client.record.note(dry_run=dry.name)
    client.use_transport()
    client.closer = client.detection = None
    if silent.route is None:
        return Routed(silent.destination, "silent")
    return Detected(client.fast_layer.layer, silent.route, "silent")


def finish(client: Client) -> Step | None:
    """Decide by what has come: the client's time is over, it has half-closed, or has sent as much as is looked at."""
    closer = client.closer = client.closer or _look_closer(client)
    layer, decision = client.fast_layer.layer, None
    if closer.openers:
        _open_hello(client, closer, last=True)
        decision = client.detection.feed(client.received)
    client.is_request_cut = (
        bool(layer.hello_readers.items)
        and layer.detector.may_need_answers(client.received)
        and client.detection.needs_more(layer.hello_readers.items)
    )
    decided = _decided(client, decision or client.detection.finish())
    # If it goes by the outer name, that may not have decided, either.
    return decided or _decided(client, client.detection.finish())


def _look_closer(client: Client) -> CloserLook:
    layer, configuration = client.fast_layer.layer, client.configuration
    address = client.address if layer.depends_on_client else None
    host, timeout = address.host if address else None, configuration.settings.detect_timeout
    detection = client.detection = client.detection or client.start_detection(layer)
    openers: list[HelloOpener] = []
    if layer is configuration.top:
        limit, counts = configuration.settings.peek_limit, configuration.counts
        openers = [opening.reader(limit, counts) for opening in configuration.openings]
    silent, dry_run = layer.silent_for(host), None
    for route in layer.silent_routes.items:
        if not detection.serves(route):
            continue
        if route.is_of_unit and silent:  # those of other units are behind the listener's own lines
            break
        if not route.dry_run:
            after = route.silent_after(configuration.settings)
            silent = Silent(route.destination or Refusal.CLOSE, after=after, route=route)
            break
        dry_run = dry_run or route
    silent = silent or _CLOSE
    can_decide = layer.awaits_bytes or layer.detector.takes_any_client or detection.can_decide()
    if silent is _CLOSE and not can_decide:
        silent = Silent(layer.default)
    is_routed = layer.server_first or (
        not can_decide
        and not isinstance(layer.default, Refusal)
        and silent.destination == layer.default
        and not detection.has_routes_for_client()
    )
    until = client.detection_began
    until += timeout if silent.after is None or client.received else silent.after
    return CloserLook(silent, until, dry_run, openers, is_routed)


def _detect_closely(client: Client) -> Step | None:
    closer = client.closer = client.closer or _look_closer(client)
    # Who is not silent has `detect_timeout`, or what is left of the time to say nothing if it is longer.
    usual = client.detection_began + client.path.detect_timeout
    if closer.until != usual > client.path.seconds() + ROUNDING:
        closer.until = usual
        if (step := client.await_due()) is not None:
            return step
    if closer.openers:
        outcome = _open_hello(client, closer)
        if outcome is not None or closer.openers:
            return outcome
    detection = client.detection
    decision = detection.feed(client.received)
    for exchange in detection.answered[closer.answers :]:
        send(client, exchange.answer)
    closer.answers = len(detection.answered)
    return None if decision is None else _decided(client, decision)


def _open_hello(client: Client, closer: CloserLook, *, last: bool = False) -> Outcome | None:
    """Put an inner hello in the place of the outer one, as soon as that is whole."""
    while closer.openers:
        inner = closer.openers[0].read(client.received, last=last)
        if inner is None:
            break
        closer.openers = closer.openers[1:]
        client.record.note(inner.facts)
        if inner.illegal is not None:
            send(client, inner.illegal.alert)
            return TurnedAway(Refusal.CLOSE, "tls-failed")
        if inner.second is not None:
            client.use_transport()
            client.preambles += (inner,)
            client.received = inner.stream
    return None


def _go_by_outer_name(client: Client, inner: InnerHello) -> Step | None:
    """Take the outer hello, since the inner name leads to what cannot confirm to the client that it has seen that."""
    client.end_layer()
    client.received = inner.as_received(client.received)
    client.record.note(inner.outer)
    client.detection = client.start_detection(client.fast_layer.layer)
    return _detect_closely(client)


def _decided(client: Client, decision: Decision[CompiledRoute]) -> Step | None:
    for preamble in client.preambles:
        default = client.configuration.settings.default
        if isinstance(preamble, InnerHello) and not preamble.fits(decision.route, default):
            return _go_by_outer_name(client, preamble)
    answered = decision.answered
    client.note_decided(decision.facts)
    if answered:
        client.preambles += tuple(
            AnsweredRequest(exchange) for exchange in answered if exchange.repeat
        )
        client.received = client.received[sum(len(exchange.request) for exchange in answered) :]
    client.closer = client.detection = None
    return Detected(client.fast_layer.layer, decision.route)
