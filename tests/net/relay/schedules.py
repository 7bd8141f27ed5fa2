"""What two peers may do, in an order that hypothesis makes up."""

from typing import Literal

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Who = Literal["client", "server"]

Act = Literal["write", "finish", "stall", "resume", "leave", "reset", "wait", "drain", "move"]
"""What a peer does, or whoever runs the relay.

- *write* this many bytes;
- *finish*: send no more after all that is to be written, but read on;
- *stall*: stop reading; *resume*: read again;
- *leave*: close the connection at once, with whatever has not been written or read;
- *reset* it;
- *wait* this many turns of the reactor;
- *drain*: the relay is told to end, whichever peer it is said of;
- *move*: another relay goes on with both sockets, as in another process.
"""

_MOST_STEPS = 14
_MOST_AT_ONCE = 2**20
LONGEST = _MOST_STEPS * _MOST_AT_ONCE  # no side sends more bytes than this
_SIZES = [1, 100, 1460, 16_384, 65_535, 65_536, 65_537, 262_144, 400_000, _MOST_AT_ONCE]
_SMALL_BUFFERS = 2**16


@attrs.frozen
class Step:
    """One act of one peer; `amount` is that of bytes or turns."""

    who: Who
    act: Act
    amount: int = 0


@attrs.frozen
class Schedule:
    steps: tuple[Step, ...]
    before: int = 0  # how many come before the relay starts, while the client's end is paused
    pending: int = 0  # the client's first bytes, which were read before
    finished: bool = False  # they are all that it sends, and it has said so
    buffers: int | None = None  # bytes that sockets keep in either direction; None is the system's


def schedules(*, endings: bool, moves: bool = False) -> SearchStrategy[Schedule]:
    sizes = st.one_of(st.sampled_from(_SIZES), st.integers(1, 200_000))
    who: SearchStrategy[Who] = st.sampled_from(["client", "server"])
    plain: list[Act] = ["finish", "stall", "resume"]
    rude: list[Act] = ["leave", "reset", "leave", "reset", "drain"]
    writing = st.builds(Step, who, st.just("write"), sizes)
    waiting = st.builds(Step, who, st.just("wait"), st.integers(1, 30))
    moving: list[Act] = ["move"] * 3 if moves else []
    acting = st.builds(Step, who, st.sampled_from(plain + rude * endings + moving))
    return st.builds(
        Schedule,
        st.lists(
            st.one_of(writing, writing, waiting, acting), min_size=3, max_size=_MOST_STEPS
        ).map(tuple),
        before=st.sampled_from([0, 0, 1, 3]),
        pending=st.sampled_from([0, 1, 8192, 262_144]),
        finished=st.sampled_from([False, False, False, True]),
        buffers=st.sampled_from([None, _SMALL_BUFFERS]),
    )
