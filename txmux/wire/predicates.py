"""Predicates for what most protocols begin with: a few bytes, a pattern, or some binary fields."""

from collections.abc import Callable
from functools import cached_property

import attrs

from txmux.classes import frozen
from txmux.detection.regex import Progress, StreamPattern, compile_pattern
from txmux.interfaces import Datagrams, Peeked, Predicate, Verdict
from txmux.wire.cursor import Cursor, MalformedError, ShortError

__all__ = ["DatagramFields", "Either", "Fields", "Pattern", "Prefix", "begins_with", "verdict_of"]

# To take them out of the class at every byte would cost more than to compare it.
_MATCH, _NO, _NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE


class Prefix:
    """Whether a stream begins with these bytes.

    Args:
        expected: At least one byte.
    """

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self.longest = len(expected)
        self.first_bytes = frozenset(expected[:1])

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return begins_with(peeked.data, self._expected)


class Pattern:
    """Whether a stream begins with a match of a regular expression.

    It is compiled at first use; one that cannot be used raises `txmux.detection.regex.PatternError` then. Every
    byte is read once.

    Args:
        expression: In the syntax of `re` for bytes, anchored at the first one.
        within: The most bytes a match may have; it can be left out if the expression itself has a limit.
    """

    def __init__(self, expression: bytes, *, within: int | None = None) -> None:
        self._expression = expression
        self._within = within

    def compile(self) -> StreamPattern:
        """Compile the expression, if that has not been done.

        Raises:
            PatternError: It cannot be used.
        """
        return self._compiled

    @cached_property
    def _compiled(self) -> StreamPattern:
        return compile_pattern(self._expression, within=self._within)

    @cached_property
    def longest(self) -> int:
        """The most bytes that a match has.

        Raises:
            ValueError: There is no limit; `within` would set one.
        """
        if self._compiled.longest is None:
            raise ValueError(f"{self._expression!r} has no limit: set one by within=")
        return self._compiled.longest

    @cached_property
    def first_bytes(self) -> frozenset[int] | None:
        return possible_first_bytes(self._compiled.verdict)

    @cached_property
    def _scan(self) -> Callable[[bytes, Progress | None], Progress]:
        return self._compiled.scan

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return peeked.parsed(self._scan).verdict


class Fields:
    """Whether a stream begins with binary fields, each of which allows only some values.

    Args:
        read: Reads the fields, and raises as `Cursor` does. What it returns does not matter.
        longest: The most bytes that it reads.
    """

    def __init__(self, read: Callable[[Cursor], object], longest: int) -> None:
        self._read = read
        self.longest = longest

    @cached_property
    def first_bytes(self) -> frozenset[int] | None:
        return possible_first_bytes(lambda data: verdict_of(data, self._read))

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return verdict_of(peeked.data, self._read)


class Either:
    """Whether one of two predicates, or both, match: for protocols that begin in one of two forms.

    Args:
        first: Asked first.
        second: Asked if `first` does not match.
    """

    def __init__(self, first: Predicate, second: Predicate) -> None:
        self._both = first, second

    @cached_property
    def longest(self) -> int:
        return max(predicate.longest for predicate in self._both)

    @cached_property
    def first_bytes(self) -> frozenset[int] | None:
        return possible_first_bytes(lambda data: self(Peeked(data)))

    def __call__(self, peeked: Peeked, /) -> Verdict:
        first, second = self._both
        verdict = first(peeked)
        if verdict is Verdict.MATCH:
            return verdict
        other = second(peeked)
        return verdict if other is Verdict.NO else other


def begins_with(data: bytes, expected: bytes) -> Verdict:
    """Return whether a stream, of which `data` has arrived so far, begins with `expected`."""
    if data.startswith(expected):
        return _MATCH
    return _NEED_MORE if expected.startswith(data) else _NO


def verdict_of(data: bytes, read: Callable[[Cursor], object]) -> Verdict:
    """Say whether a stream begins with the fields that a reader wants.

    Args:
        data: The bytes so far.
        read: Reads the fields, and raises as `Cursor` does.
    """
    try:
        read(Cursor(data))
    except ShortError:
        return Verdict.NEED_MORE
    except MalformedError:
        return Verdict.NO
    return Verdict.MATCH


def possible_first_bytes(verdict: Callable[[bytes], Verdict]) -> frozenset[int] | None:
    """Find the bytes that a stream may begin with; ``None`` if all may."""
    allowed = frozenset(byte for byte in range(256) if verdict(bytes([byte])) is not Verdict.NO)
    return allowed if len(allowed) < 256 else None


@frozen
class DatagramFields:
    """Whether the first datagram has binary fields, each of which allows only some values.

    Args:
        read: Reads the fields, and raises as `Cursor` does; the datagram is there in full, so a field that is not is a
            no. What it returns does not matter.
        first_bytes: The bytes that the datagram can begin with; ``None`` is any.
    """

    _read: Callable[[Cursor], object]
    first_bytes: frozenset[int] | None = None
    longest: int = attrs.field(default=1, init=False)

    def __call__(self, peeked: Datagrams, /) -> Verdict:
        try:
            self._read(Cursor(peeked.data))
        except (ShortError, MalformedError):
            return Verdict.NO
        return Verdict.MATCH
