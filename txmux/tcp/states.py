"""How a connection is served in each state: by functions, or by a stage object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from txmux.tcp.fast_path import CLIENT_GONE
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

_NONE: Any = None  # its stage object does that


class State(NamedTuple):
    """The functions of a state, each of which returns the next step; see `txmux.tcp.fast_path`.

    Attributes:
        enter: Called with the connection and the values of the previous outcome.
        data: Called with what the client has sent.
        end: Called when it has half-closed its connection …
        lost: … and when that has broken.
        due: Called at the time that ``due_at`` returns, by the runtime's clock.
        make_stage: Makes the stage object that takes over by then, or at anything unusual, with a transport; in place of ``due``.
        read: Reads what the client has sent, in place of ``data``.
        check: Called once a second, with the clock's time, as long as there is no transport.
    """

    enter: Callable[..., Step | None]
    data: Callable[[Client, bytes], Step | None] = _NONE
    end: Callable[[Client], Step | None] = _NONE
    lost: Callable[[Client], Step] = lambda _: CLIENT_GONE
    due: Callable[[Client], Step | None] = _NONE
    make_stage: Callable[[Client], Stage | None] | None = None
    due_at: Callable[[Client], float] = _NONE
    read: Callable[[Client], Step | None] | None = None
    check: Callable[[Client, float], None] | None = None


def _of(module: Any, **others: Any) -> State:
    names = {name: getattr(module, name) for name in State._fields if hasattr(module, name)}
    return State(**{**names, **others})


STATES: Mapping[ConnectionState, State] = {
    "introduction": _of(reading_proxy_header),
    "peeking": _of(peeking),
    "handshaking": _of(handshaking, enter=handshaking.Handshaking),
    "awaiting-hello": State(connecting.AwaitingHello),
    "connecting": _of(connecting),
    "awaiting-retry": _of(awaiting_retry),
    "relaying": _of(relaying),
    "serving": State(ServingHere),
    "handing-over": State(HandingOff),
    "rejecting": State(Rejecting),
    "closing": State(Closing),
}
