"""How a connection is served in each state: by functions as long as it has no transport, and by a stage object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from txmux.tcp.stage import Client, Stage, Step
from txmux.tcp.stages import (
    awaiting_retry,
    connecting,
    handshaking,
    peeking,
    reading_proxy_header,
    relaying,
)
from txmux.tcp.stages.handing_off import HandingOff
from txmux.tcp.stages.serving_here import ServingHere
from txmux.tcp.stages.turning_away import Closing, Rejecting
from txmux.telemetry.record import ConnectionState


class State(NamedTuple):
    """A state of a connection; see `txmux.tcp.fast_path`.

    Attributes:
        enter: Called with the connection and the values of the previous outcome.
        make_stage: Makes the stage object that takes over, with a transport.
        due_at: Returns the time, by the runtime's clock, by which it takes over.
        read: Reads what the client has sent; without it, a stage object does.
        check: Called once a second, with the clock's time.
    """

    enter: Callable[..., Step | None]
    make_stage: Callable[[Client], Stage | None] | None = None
    due_at: Callable[[Client], float] | None = None
    read: Callable[[Client], Step | None] | None = None
    check: Callable[[Client, float], None] | None = None


STATES: Mapping[ConnectionState, State] = {
    "introduction": State(
        reading_proxy_header.enter,
        reading_proxy_header.ReadingProxyHeader,
        reading_proxy_header.due_at,
        reading_proxy_header.read,
    ),
    "peeking": State(peeking.enter, peeking.make_stage, peeking.due_at, peeking.read),
    "handshaking": State(
        handshaking.Handshaking, handshaking.make_stage, handshaking.due_at, handshaking.read
    ),
    "awaiting-hello": State(connecting.AwaitingHello),
    "connecting": State(connecting.enter, connecting.make_stage, connecting.due_at),
    "awaiting-retry": State(awaiting_retry.enter, awaiting_retry.make_stage, awaiting_retry.due_at),
    "relaying": State(relaying.enter, relaying.make_stage, relaying.due_at, check=relaying.check),
    "serving": State(ServingHere),
    "handing-over": State(HandingOff),
    "rejecting": State(Rejecting),
    "closing": State(Closing),
}
