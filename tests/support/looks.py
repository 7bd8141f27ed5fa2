"""The looks of relays at whether a peer has taken all that it was sent, where a test moves the clock."""

from typing import Any

from twisted.internet.task import Clock

from txmux.net.relay.relay import Relay
from txmux.tcp.stages import relaying

_LOOKS = {Relay.end_when_drained.__name__, relaying.server_ended.__name__}


def look_again(clock: Clock, timers: Any = None) -> None:
    """Move a clock on to the next look, if that is what a relay waits for.

    On a busy machine, or where the system takes its time, the peer's acknowledgement comes after the first look.
    """
    waiting: Any = (timers or clock).getDelayedCalls()
    looks = [timer.getTime() for timer in waiting if _is_look(timer)]
    if looks:
        clock.advance(max(0.0, min(looks) - clock.seconds()))


def is_looked_for(timers: Any) -> bool:
    return any(map(_is_look, timers.getDelayedCalls()))


def _is_look(timer: Any) -> bool:
    return getattr(timer.func, "__name__", "") in _LOOKS
