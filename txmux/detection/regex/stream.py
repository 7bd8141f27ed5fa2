"""A pattern that is matched against the first bytes of a stream."""

import sys
from math import inf

import attrs

from txmux.detection.regex.automaton import Automaton, build
from txmux.detection.regex.syntax import PatternError, parse
from txmux.interfaces import Verdict

MAX_KEPT = 1_000
"""How many deterministic states a pattern caches before it drops them: some could have billions."""


class _PatternState:
    """A state of the deterministic automaton: a set of states of the other one.

    Attributes:
        shortest: The fewest bytes that lead to a match, 0 where it is one, `math.inf` where none do.
        moves: The states that are known to follow, by the class of the next byte.
    """

    __slots__ = ("moves", "shortest", "states")

    def __init__(self, states: int, shortest: float) -> None:
        self.states = states
        self.shortest = shortest
        self.moves: dict[int, _PatternState] = {}


@attrs.frozen
class Progress:
    """How far a pattern has read a stream; see `StreamPattern.scan`."""

    verdict: Verdict
    length: int
    _state: _PatternState


class StreamPattern:
    """A compiled pattern, anchored at the first byte.

    It can be shared: what it keeps between calls only saves time. Reading takes time in proportion to the bytes.

    Args:
        automaton: The pattern.
        within: The most bytes a match may have; ``None`` for no limit.
    """

    def __init__(self, automaton: Automaton, within: int | None) -> None:
        self._automaton = automaton
        self._within = sys.maxsize if within is None else within
        self._start = _PatternState(automaton.start, automaton.shortest(automaton.start))
        self._states = {automaton.start: self._start}
        self._begin = Progress(
            Verdict.NEED_MORE if self._start.shortest else Verdict.MATCH, 0, self._start
        )

    @property
    def longest(self) -> int | None:
        """The most bytes that a match may have; ``None`` if there is no limit."""
        if self._within < sys.maxsize:
            return self._within
        longest = self._automaton.longest()
        return int(longest) if longest < inf else None

    def verdict(self, data: bytes) -> Verdict:
        """Return ``MATCH`` if some prefix of `data` is a match in full, and ``NO`` if no continuation can have one."""
        return self.scan(data).verdict

    def scan(self, data: bytes, earlier: Progress | None = None) -> Progress:
        """Continue where an earlier call has stopped; for `txmux.interfaces.Peeked.parsed`."""
        progress = earlier or self._begin
        if progress.verdict is not Verdict.NEED_MORE:
            return progress
        state = progress._state
        length = progress.length
        for byte_class in data[length : self._within].translate(self._automaton.classes):
            state = state.moves.get(byte_class) or self._move(state, byte_class)
            length += 1
            if not state.shortest:
                return Progress(Verdict.MATCH, length, state)
            if state.shortest > self._within - length:
                return Progress(Verdict.NO, length, state)
        return Progress(Verdict.NEED_MORE, length, state)

    def fullmatch(self, data: bytes) -> bool:
        state = self._start
        for byte_class in data.translate(self._automaton.classes):
            state = state.moves.get(byte_class) or self._move(state, byte_class)
        return not state.shortest and len(data) <= self._within

    def _move(self, state: _PatternState, byte_class: int) -> _PatternState:
        states = self._automaton.step(state.states, byte_class)
        reached = self._states.get(states)
        if reached is None:
            if len(self._states) >= MAX_KEPT:
                self._forget()
            reached = self._states[states] = _PatternState(states, self._automaton.shortest(states))
        state.moves[byte_class] = reached
        return reached

    def _forget(self) -> None:
        # Without the moves, nothing leads from the start to a state that is no longer kept.
        for state in self._states.values():
            state.moves.clear()
        self._states = {self._start.states: self._start}


def compile_pattern(pattern: bytes, *, within: int | None = None) -> StreamPattern:
    """Compile a regular expression for a stream.

    Args:
        pattern: In the syntax of `re` for bytes.
        within: The most bytes a match may have, at least 1; ``None`` for no limit.

    Raises:
        PatternError: It is not a regular expression; or it looks past its match, back, or at what a group took;
            or nothing can match it; or it is too large.
    """
    try:
        automaton = build(parse(pattern), within)
    except RecursionError:
        raise PatternError("nests its groups too deeply: take out parentheses") from None
    shortest = automaton.shortest(automaton.start)
    if within is not None and within < shortest < sys.maxsize:
        raise PatternError(
            f"needs at least {shortest} bytes for a match, more than within={within}"
        )
    if shortest > sys.maxsize:
        raise PatternError(
            r"can never match, whatever the bytes: correct the ^, \b, \B or empty class that rules all out"
        )
    return StreamPattern(automaton, within)
