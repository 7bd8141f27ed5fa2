"""Several flows of one client address: finds a datagram's flow by its connection ID; without sockets.

One socket of a program may hold several QUIC connections, and a NAT may give the port of a client to the next one.

An ID that is neither in an answer nor in the client's first datagram is one that the server has given in an encrypted frame.
Some clients change to such an ID as soon as they may (quic-go, s2n-quic). It belongs to a connection that has stopped
using the one before. The connection is guessed, and guessed again if

- the connection still uses the ID that it had;
- it comes again and again when another server has just sent something that its client answers, and not this one; or
- the server does not answer it in time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import attrs

from txmux.classes import define
from txmux.udp.connection_ids import ConnectionIds, destination_of
from txmux.wire.quic.header import LONG_HEADER, opens_connection, opens_first_connection

REORDERED = 0.02  # seconds for which datagrams with the previous ID may be on their way
RECENT = 1.0
"""Seconds in which a connection that changes its ID has used the one before; and in which a guess is proved wrong."""

ACKNOWLEDGED = 0.03
"""Seconds in which a peer acknowledges data: 0.025 (RFC 9000, section 18.2), and some more."""

_FIXED = 0x40
_LONGEST_DELAY = 0.5
_UNUSED = 0.25  # seconds without use after which an ID may have been replaced
_MOST_CANDIDATES = 8
_MOST_GUESSES = 64
_MOST_ONCE = 256
_CLEAR, _SURE = 2, 4  # votes
_LEAST_NAME, _NAME = 4, 8  # bytes compared of IDs of unknown length


class Beside(Protocol):
    """A flow that shares its client address."""

    ids: ConnectionIds | None
    shared_address: SharedAddress[Any] | None

    @property
    def answer_timeout(self) -> float: ...

    def port_is_shut(self) -> None: ...


F = TypeVar("F", bound=Beside)


@define(eq=False)
class _Guess(Generic[F]):
    """The flow to which an unknown ID may belong.

    Attributes:
        name: The ID, or the beginning of it.
        votes: Evidence for a flow, less evidence against it.
        asked_at: When it was used unprompted, and not as an answer; ``None`` once the server has answered that.
        is_answered: Whether a server has answered it.
        silent: Flows whose servers have not answered it, while none has.
    """

    name: bytes
    since: float
    used_at: float
    flow: F | None = None
    votes: dict[F, int] = attrs.field(factory=dict)
    asked_at: float | None = None
    is_answered: bool = False
    silent: set[F] = attrs.field(factory=set)

    def vote(self, flow: F, change: int) -> None:
        self.votes[flow] = max(-_SURE, min(self.votes.get(flow, 0) + change, _SURE))

    def votes_for(self, flow: F) -> int:
        return self.votes.get(flow, 0)

    def rank(self, flow: F) -> tuple[bool, int]:
        return flow not in self.silent, self.votes_for(flow)

    def count_silence(self, flow: F) -> None:
        """Record that the server of a flow has not answered in time."""
        if self.is_answered:
            self.vote(flow, -_CLEAR)
        else:
            # The client waits twice as long each time, so each flow is tried once, whatever the times of other uses have said.
            self.votes.clear()
            self.silent.add(flow)


class SharedAddress(Generic[F]):
    """The flows of one address."""

    def __init__(self, seconds: Callable[[], float], *flows: F) -> None:
        self._seconds = seconds
        self._flows: dict[F, tuple[bytes, ...]] = {}  # with the IDs by which they are found
        self.names: dict[bytes, dict[F, None]] = {}
        """The flows that have an ID; the newest, at the end, gets what is sent to it."""
        self.lengths: dict[int, int] = {}  # of IDs, the longest first, with their number
        self.used_at: OrderedDict[F, float] = OrderedDict()
        """The flows that may have unknown IDs, and when each last used a known one; the latest at the end."""
        self._answered_at: dict[F, float] = {}  # when its server last sent something
        self._delay = 0.0  # the longest time in which a client has answered its server
        self.guesses: OrderedDict[bytes, _Guess[F]] = OrderedDict()
        self.guessed: dict[F, _Guess[F]] = {}
        self._once: OrderedDict[bytes, bool] = OrderedDict()  # possible IDs that have come once
        for flow in flows:
            self.add(flow)

    def __len__(self) -> int:
        return len(self._flows)

    def __contains__(self, flow: object) -> bool:
        return flow in self._flows

    @property
    def flows(self) -> list[F]:
        return [*self._flows]

    def add(self, flow: F) -> None:
        self._flows[flow] = ()
        flow.shared_address = self
        self.learn(flow)
        if flow.ids is None or flow.ids.current is not None:
            self.used_at[flow] = self._seconds()

    def remove(self, flow: F) -> None:
        for name in self._flows.pop(flow):
            self._forget(flow, name)
        if flow.shared_address is self:
            flow.shared_address = None
        self.used_at.pop(flow, None)
        self._answered_at.pop(flow, None)
        self.guessed.pop(flow, None)
        for guess in [*self.guesses.values()]:
            guess.votes.pop(flow, None)
            guess.silent.discard(flow)
            if guess.flow is flow:
                del self.guesses[guess.name]

    def learn(self, flow: F) -> None:
        """Update the IDs of a flow."""
        ids = flow.ids
        if ids is None:
            return
        current = () if ids.current is None else (ids.current,)
        names, before = {*ids.known, *current}, self._flows[flow]
        self._flows[flow] = tuple(names)
        for name in before:
            if name not in names:
                self._forget(flow, name)
        for name in names.difference(before):
            if name not in self.names:
                self.names[name] = {}
                self._count(len(name), 1)
            self.names[name][flow] = None

    def _forget(self, flow: F, name: bytes) -> None:
        flows = self.names[name]
        del flows[flow]
        if not flows:
            del self.names[name]
            self._count(len(name), -1)

    def _count(self, length: int, change: int) -> None:
        count = self.lengths.get(length, 0) + change
        if count and length in self.lengths:
            self.lengths[length] = count
        elif count:
            self.lengths = dict(sorted({**self.lengths, length: count}.items(), reverse=True))
        else:
            del self.lengths[length]

    def from_client(self, data: memoryview, size: int) -> bool:  # noqa: ARG002 - as for a flow
        return False  # it may be of several flows

    def port_is_shut(self) -> None:
        for flow in self.flows:
            flow.port_is_shut()

    def find(self, head: bytes) -> F | None:
        """Return the flow that a datagram belongs to for certain; see `txmux.udp.connection_ids.HEAD`."""
        if not head:
            return None
        if head[0] & LONG_HEADER:
            return self._used(destination_of(head), head)
        for length in self.lengths:
            flow = self._used(head[1 : 1 + length]) if length else None
            if flow is not None:
                return flow
        return None

    def _used(self, name: bytes | None, long_head: bytes = b"") -> F | None:
        flow = None
        for found in reversed(self.names.get(name, {}) if name is not None else {}):
            # The same ID in another version is another connection, as after a Version Negotiation.
            if not long_head or found.ids is None or found.ids.speaks(long_head):
                flow = found
                break
        if flow is not None:
            ids = flow.ids
            now = self._seconds()
            if ids is not None and ids.current is None and name is not None and name == ids.served:
                ids.use(name)
                self.used_at[flow] = now
                delay = now - self._answered_at.get(flow, now)
                self._delay = min(max(self._delay, delay), _LONGEST_DELAY)
            elif flow in self.used_at:
                self.used_at[flow] = now
                self.used_at.move_to_end(flow)
        return flow

    def may_open(self, datagram: bytes) -> bool:
        speaks_other = next(iter(self._flows)).ids is None
        return (opens_first_connection if speaks_other else opens_connection)(datagram)

    def flow_for_unknown_id(self, head: bytes) -> F:
        """Return the flow that a datagram with an unknown ID may belong to; it opens no connection."""
        first = next(iter(self._flows))
        is_short = bool(head) and head[0] & (LONG_HEADER | _FIXED) == _FIXED
        if not self.used_at or (first.ids is None and not is_short):
            return first
        if not is_short:
            return next(reversed(self.used_at))
        length = next((size for size in reversed(self.lengths) if size >= _LEAST_NAME), _NAME)
        name = head[1 : 1 + length]
        nameless = self.names.get(b"", {})
        named = (flow for flow in reversed(self.used_at) if flow not in nameless)
        latest = [*islice(named, _MOST_CANDIDATES)]
        if not nameless or (latest and self._comes_again(name)):
            return self._guess(name, head, latest)
        return self._used(b"") or first

    def _comes_again(self, name: bytes) -> bool:
        """Return whether these bytes have come before, so that they are an ID: without IDs, encrypted data is there."""
        if name in self.guesses or self._once.pop(name, False):
            return True
        self._once[name] = True
        if len(self._once) > _MOST_ONCE:
            self._once.popitem(last=False)
        return False

    def _guess(self, name: bytes, head: bytes, latest: Sequence[F]) -> F:
        """Guess whose ID a short header has; the flow that was active last is the first of `latest`."""
        now = self._seconds()
        guess = self.guesses.get(name)
        if guess is None:
            guess = self.guesses[name] = _Guess(name, now, now)
            if len(self.guesses) > _MOST_GUESSES:
                self._give_up(next(iter(self.guesses.values())))
        quiet = [flow for flow in latest if self.used_at[flow] <= guess.since + REORDERED] or latest
        self._weigh(guess, quiet, now)
        flow = self._choose(guess, quiet, now)
        self.guessed[flow], guess.flow, guess.used_at = guess, flow, now
        is_sure = guess.votes_for(flow) >= _SURE and now - guess.since > RECENT
        has_other = self.used_at[flow] > guess.since + REORDERED
        if is_sure and not has_other and not self._is_disputed(flow, guess):
            self._settle(guess, head, now)
        return flow

    def _weigh(self, guess: _Guess[F], quiet: Sequence[F], now: float) -> None:
        """Vote by the time of this use: a client mostly sends answers. The flows in `quiet` have used no other ID since."""
        within = self._delay + ACKNOWLEDGED
        just_answered = {flow for flow in quiet if now - self._answered_at.get(flow, 0.0) <= within}
        if just_answered and len(just_answered) < len(quiet):
            for flow in quiet:
                guess.vote(flow, 1 if flow in just_answered else -1)
        guessed, asked_at = guess.flow, guess.asked_at
        if guessed is not None and asked_at is not None and now - asked_at > guessed.answer_timeout:
            guess.count_silence(guessed)
            guess.asked_at = asked_at = None
        if not just_answered and asked_at is None:
            guess.asked_at = now

    def _choose(self, guess: _Guess[F], quiet: Sequence[F], now: float) -> F:
        """Choose a flow for an ID: the one with most votes of those without another new ID.

        With equal votes it is a new flow that has not changed its ID yet, the one whose server answered first; or else
        the one that was active last.
        """
        if guess.silent.issuperset(quiet):
            guess.silent.intersection_update((guess.flow,))  # datagrams were lost
        free = [flow for flow in quiet if self._is_free(flow, guess, now)]
        if not free:
            free = sorted(quiet, key=lambda flow: self.guessed[flow].used_at)
        new = [
            flow for flow in reversed(free) if _is_new(flow) and now - self.used_at[flow] < RECENT
        ]
        new.sort(key=lambda flow: self._answered_at.get(flow, 0.0))
        chosen = max([*new, *free], key=guess.rank)
        before = guess.flow
        if before in free and guess.rank(before) == guess.rank(chosen):
            return before
        if before is not None:
            del self.guessed[before]
        other = self.guessed.get(chosen)
        if other is not None:
            other.flow = None
        return chosen

    def _is_free(self, flow: F, guess: _Guess[F], now: float) -> bool:
        """Return whether a flow has no other new ID that is still in use and has as many votes."""
        other = self.guessed.get(flow)
        if other is None or other is guess:
            return True
        is_left = other.used_at <= min(guess.since + REORDERED, now - _UNUSED)
        return is_left or other.rank(flow) < guess.rank(flow)

    def _is_disputed(self, flow: F, guess: _Guess[F]) -> bool:
        """Return whether another ID in use may be that of a flow, whose server then repeats itself and answers nothing."""
        return any(
            other.votes_for(flow) >= _CLEAR and other.used_at > guess.since + REORDERED
            for other in self.guesses.values()
            if other is not guess
        )

    def _settle(self, guess: _Guess[F], head: bytes, now: float) -> None:
        """Trust an ID as one that the server has chosen."""
        flow = guess.flow
        if flow is not None and flow.ids is not None and flow.ids.served is not None:
            self._give_up(guess)
            flow.ids.use(head[1 : 1 + len(flow.ids.served)])
            self.learn(flow)
            self.used_at[flow] = now
            self.used_at.move_to_end(flow)

    def _give_up(self, guess: _Guess[F]) -> None:
        del self.guesses[guess.name]
        if guess.flow is not None:
            del self.guessed[guess.flow]

    def answered(self, flow: F) -> None:
        now, guess = self._seconds(), self.guessed.get(flow)
        self._answered_at[flow] = now
        asked_at = None if guess is None else guess.asked_at
        if guess is not None and asked_at is not None and now - asked_at <= flow.answer_timeout:
            guess.vote(flow, _CLEAR)
            guess.asked_at, guess.is_answered = None, True
            guess.silent.clear()


def _is_new(flow: Beside) -> bool:
    return flow.ids is not None and flow.ids.current == flow.ids.served
