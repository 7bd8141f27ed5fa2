"""An automaton without empty moves, run on whole sets of its states.

A set of states is a number whose bit `s` stands for the state `s`, so that all of it moves with a few operations.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from math import inf

from txmux.classes import frozen
from txmux.detection.regex import syntax
from txmux.detection.regex.syntax import PatternError, parse
from txmux.interfaces import Verdict

MAX_STATES = 5_000
"""More than a pattern written by hand needs, and few enough that none takes long to build or to follow."""

Masks = tuple[int, ...]
"""A set of states for each context: the start of the stream first, then each kind of byte."""


_counts: ContextVar[Callable[[int], bool]] = ContextVar("counts", default=lambda _: True)
_ANY_BYTE = syntax.OneByte(syntax.EVERY_BYTE)


@contextmanager
def counted(count: Callable[[int], bool]) -> Iterator[None]:
    """Have the states of each pattern counted before it is built; one that `count` refuses stands for any byte, in rules of no use."""
    token = _counts.set(count)
    try:
        yield
    finally:
        _counts.reset(token)


def build(tree: syntax.Node, longest: int | None) -> Automaton:
    """Make the automaton of a tree; what only matches of more than `longest` bytes need is left out.

    Raises:
        PatternError: The automaton would be too large, or a match would depend on the byte after it.
        RecursionError: The tree is too deep.
    """
    assertions = {leaf for leaf in _leaves(tree) if isinstance(leaf, syntax.Assertion)}
    byte_kinds = [syntax.EVERY_BYTE]
    if assertions & {syntax.Assertion.BOUNDARY, syntax.Assertion.NO_BOUNDARY}:
        byte_kinds = [syntax.WORD, syntax.EVERY_BYTE ^ syntax.WORD]
    if syntax.Assertion.LINE_START in assertions:
        byte_kinds = [*byte_kinds[:-1], byte_kinds[-1] ^ syntax.NEWLINE, syntax.NEWLINE]
    most = _expanded(tree, longest) * len(byte_kinds)
    if most > MAX_STATES:
        raise syntax.PatternError(
            f"is too large, as it needs more than {MAX_STATES} states: "
            "make the numbers in its {...} repeats smaller, or leave them out"
        )
    if not _counts.get()(most):
        tree = _ANY_BYTE
    return _Builder(byte_kinds, most + len(byte_kinds), longest).build(tree)


def _leaves(node: syntax.Node) -> Iterator[syntax.OneByte | syntax.Assertion]:
    match node:
        case syntax.OneByte() | syntax.Assertion():
            yield node
        case syntax.Repeat():
            yield from _leaves(node.item)
        case _:
            yield from chain.from_iterable(map(_leaves, node.items))


def _expanded(node: syntax.Node, longest: int | None) -> int:
    """Count the parts that repeats are written out to, so that a short pattern cannot take long to build."""
    match node:
        case syntax.OneByte() | syntax.Assertion():
            return 1
        case syntax.Repeat():
            return max(1, _expanded(node.item, longest) * _copies(node, longest)[0])
        case _:
            return max(1, sum(_expanded(item, longest) for item in node.items))


def _copies(repeat: syntax.Repeat, longest: int | None) -> tuple[int, bool]:
    """Return how many copies of its item a repeat is, and whether the last one may come again and again."""
    maximum = repeat.maximum
    # A round that is worth its count takes a byte, so a count that `longest` keeps out of reach is no limit.
    if maximum is None or (longest is not None and maximum >= longest):
        return max(repeat.minimum, 1), True
    return maximum, False


@frozen
class _Fragment:
    """A part of the pattern, seen from its left side.

    Attributes:
        first: The states that it can begin with.
        passes: The states that may come next when it takes no byte; none where it has to take one.
        connect: Connects its states to those that come after the fragment. To be called once.
    """

    first: Masks
    passes: Masks
    connect: Callable[[Masks], None]

    def before(self, after: Masks) -> Masks:
        return _union(self.first, _both(self.passes, after))


def _union(left: Masks, right: Masks) -> Masks:
    return tuple(a | b for a, b in zip(left, right, strict=True))


def _both(left: Masks, right: Masks) -> Masks:
    return tuple(a & b for a, b in zip(left, right, strict=True))


class _Builder:
    """Numbers the states so that state `s` takes bytes of the kind `s` modulo the number of kinds.

    The lowest numbers are the match, once for each kind; all states have lower numbers than `most`.
    """

    def __init__(self, byte_kinds: list[int], most: int, longest: int | None) -> None:
        self._byte_kinds = byte_kinds
        self._contexts = (None, *byte_kinds)
        self._longest = longest
        self._match = (1 << len(byte_kinds)) - 1
        self._all = (1 << most) - 1
        self._nothing: Masks = (0,) * len(self._contexts)
        self._everything: Masks = (self._all,) * len(self._contexts)
        self._next = len(byte_kinds)
        self._taken: dict[int, int] = {}
        self._follow: dict[int, int] = {}

    def build(self, tree: syntax.Node) -> Automaton:
        whole = self._fragment(tree)
        end = (self._match,) * len(self._contexts)
        whole.connect(end)
        start = whole.before(end)[0]
        for states in (start, *self._follow.values()):
            if 0 < states & self._match < self._match:
                raise syntax.PatternError(
                    r"ends with a \b or \B that depends on the byte after the match: "
                    r"leave it out, or write the byte that has to come next, such as [ \r\n]"
                )
        return Automaton.assemble(start, self._taken, self._follow, self._match)

    def _fragment(self, node: syntax.Node) -> _Fragment:
        match node:
            case syntax.OneByte():
                return self._one_byte(node.allowed)
            case syntax.Assertion():
                passes = tuple(self._held(node, before) for before in self._contexts)
                return _Fragment(self._nothing, passes, lambda _: None)
            case syntax.Alternation():
                return self._choice([self._fragment(item) for item in node.items])
            case syntax.Repeat():
                count, endless = _copies(node, self._longest)
                rounds = [self._fragment(node.item) for _ in range(count)]
                # An empty round is worth nothing but its count, so where one can be had no round is required.
                empty = any(part.passes == self._everything for part in rounds[:1])
                return self._sequence(rounds, 0 if empty else node.minimum, endless=endless)
            case _:
                parts = [self._fragment(item) for item in node.items]
                return self._sequence(parts, len(parts))

    def _one_byte(self, allowed: int) -> _Fragment:
        contexts = {
            self._next + offset: 1 + offset
            for offset, kind in enumerate(self._byte_kinds)
            if allowed & kind
        }
        for state, context in contexts.items():
            self._taken[state] = allowed & self._byte_kinds[context - 1]
        self._next += len(self._byte_kinds)

        def connect(after: Masks) -> None:
            self._follow.update((state, after[context]) for state, context in contexts.items())

        first = sum(1 << state for state in contexts)
        return _Fragment((first,) * len(self._contexts), self._nothing, connect)

    def _held(self, assertion: syntax.Assertion, before: int | None) -> int:
        match assertion:
            case syntax.Assertion.START:
                return 0 if before else self._all
            case syntax.Assertion.LINE_START:
                return 0 if before and before != syntax.NEWLINE else self._all
            case _:
                word_before = bool((before or 0) & syntax.WORD)
                word_next = word_before ^ (assertion is syntax.Assertion.BOUNDARY)
                one_of_each = self._all // self._match
                return sum(
                    one_of_each << offset
                    for offset, kind in enumerate(self._byte_kinds)
                    if bool(kind & syntax.WORD) is word_next
                )

    def _choice(self, items: list[_Fragment]) -> _Fragment:
        first = passes = self._nothing
        for item in items:
            first = _union(first, item.first)
            passes = _union(passes, item.passes)

        def connect(after: Masks) -> None:
            for item in items:
                item.connect(after)

        return _Fragment(first, passes, connect)

    def _sequence(
        self, parts: list[_Fragment], required: int, *, endless: bool = False
    ) -> _Fragment:
        """Join fragments; those from index `required` on may be left out, each with all that follow it."""
        first, passes = self._nothing, self._everything
        for index, part in reversed(list(enumerate(parts))):
            if index < required:
                first, passes = part.before(first), _both(part.passes, passes)
            else:
                first, passes = part.first, self._everything

        def connect(after: Masks) -> None:
            here = _union(after, parts[-1].first) if endless else after
            for index, part in reversed(list(enumerate(parts))):
                part.connect(here)
                here = part.before(here) if index < required else _union(part.first, after)

        return _Fragment(first, passes, connect)


_Jumps = tuple[tuple[int, int], ...]


@frozen
class Automaton:
    """The transitions: what each state takes, and the states that follow.

    Attributes:
        classes: The class of each of the 256 bytes; bytes of one class are taken by the same states.
        takers: For each class, the states that take it.
        chained: States that lead to the state with the next higher number.
        jumps: All other moves: from any state of the first set to every state of the second.
        near: At `n`, the states from which a match is at most `n` bytes away; at 0, the match itself.
        start: The states before the first byte.
        size: How many states there are.
    """

    classes: bytes
    takers: tuple[int, ...]
    chained: int
    jumps: _Jumps
    near: tuple[int, ...]
    start: int
    size: int

    @classmethod
    def assemble(
        cls, start: int, taken: Mapping[int, int], follow: Mapping[int, int], match: int
    ) -> Automaton:
        """Make an automaton from the bytes that each state takes and the states that it leads to; a match takes nothing."""
        chained, jumps = _moves(follow)
        near = _near(match, chained, jumps)
        classes, takers = _takers(taken)
        return cls(classes, takers, chained, jumps, near, start & near[-1], len(follow))

    def step(self, states: int, byte_class: int) -> int:
        return self._after(states & self.takers[byte_class])

    def _after(self, states: int) -> int:
        """Return the states behind the next byte, if all of these take it; those without a way to a match are left out."""
        reached = (states & self.chained) << 1
        for sources, targets in self.jumps:
            if states & sources:
                reached |= targets
        return reached & self.near[-1]

    def shortest(self, states: int) -> float:
        """Return the fewest bytes that lead from some of these states to a match; `math.inf` if none do."""
        distance = bisect_left(self.near, 1, key=lambda near: int(bool(states & near)))
        return distance if distance < len(self.near) else inf

    def longest(self) -> float:
        """Return the most bytes that a match has; `math.inf` if there is no limit."""
        states, length = self.start, 0
        while states:
            states = self._after(states)
            if length > self.size:
                return inf
            length += bool(states)
        return length


def _moves(follow: Mapping[int, int]) -> tuple[int, _Jumps]:
    chained = 0
    sources: dict[int, int] = {}
    for state, after in follow.items():
        neighbour = 1 << (state + 1)
        if after & neighbour:
            chained |= 1 << state
        targets = after & ~neighbour
        if targets:
            sources[targets] = sources.get(targets, 0) | 1 << state
    return chained, tuple((states, targets) for targets, states in sources.items())


def _near(match: int, chained: int, jumps: _Jumps) -> tuple[int, ...]:
    near = []
    newest = nearest = match
    while newest:
        near.append(nearest)
        before = newest >> 1 & chained
        untouched = []
        for jump in jumps:
            sources, targets = jump
            if targets & newest:
                before |= sources
            else:
                untouched.append(jump)
        jumps = tuple(untouched)
        newest = before & ~nearest
        nearest |= newest
    return tuple(near)


def _takers(taken: Mapping[int, int]) -> tuple[bytes, tuple[int, ...]]:
    by_set: dict[int, int] = {}
    for state, allowed in taken.items():
        by_set[allowed] = by_set.get(allowed, 0) | 1 << state
    numbers: dict[int, int] = {}
    classes = bytearray()
    for byte in range(256):
        takers = sum(states for allowed, states in by_set.items() if allowed >> byte & 1)
        classes.append(numbers.setdefault(takers, len(numbers)))
    return bytes(classes), tuple(numbers)


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


@frozen
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
        self.automaton = automaton
        self._within = sys.maxsize if within is None else within
        self.start = _PatternState(automaton.start, automaton.shortest(automaton.start))
        self.kept_states = {automaton.start: self.start}
        self._begin = Progress(
            Verdict.NEED_MORE if self.start.shortest else Verdict.MATCH, 0, self.start
        )

    @property
    def longest(self) -> int | None:
        """The most bytes that a match may have; ``None`` if there is no limit."""
        if self._within < sys.maxsize:
            return self._within
        longest = self.automaton.longest()
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
        for byte_class in data[length : self._within].translate(self.automaton.classes):
            state = state.moves.get(byte_class) or self._move(state, byte_class)
            length += 1
            if not state.shortest:
                return Progress(Verdict.MATCH, length, state)
            if state.shortest > self._within - length:
                return Progress(Verdict.NO, length, state)
        return Progress(Verdict.NEED_MORE, length, state)

    def fullmatch(self, data: bytes) -> bool:
        state = self.start
        for byte_class in data.translate(self.automaton.classes):
            state = state.moves.get(byte_class) or self._move(state, byte_class)
        return not state.shortest and len(data) <= self._within

    def _move(self, state: _PatternState, byte_class: int) -> _PatternState:
        states = self.automaton.step(state.states, byte_class)
        reached = self.kept_states.get(states)
        if reached is None:
            if len(self.kept_states) >= MAX_KEPT:
                self._forget()
            reached = self.kept_states[states] = _PatternState(
                states, self.automaton.shortest(states)
            )
        state.moves[byte_class] = reached
        return reached

    def _forget(self) -> None:
        # Without the moves, nothing leads from the start to a state that is no longer kept.
        for state in self.kept_states.values():
            state.moves.clear()
        self.kept_states = {self.start.states: self.start}


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
        message = f"needs at least {shortest} bytes for a match, more than within={within}"
        raise PatternError(message)
    if shortest > sys.maxsize:
        message = r"can never match, whatever the bytes: correct the ^, \b, \B or empty class that rules all out"
        raise PatternError(message)
    return StreamPattern(automaton, within)
