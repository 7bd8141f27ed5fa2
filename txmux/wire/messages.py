"""Matchers of protocols whose clients begin with a message that has names: over UDP a datagram, over TCP what has a length."""

import sys
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

import attrs
from zope.interface import implementer

from txmux.classes import frozen
from txmux.interfaces import (
    IProtocolMatcher,
    NameKey,
    Option,
    Peeked,
    Predicate,
    Transport,
    Verdict,
)
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, names, option_globs
from txmux.wire.predicates import possible_first_bytes, verdict_of

__all__ = ["FirstMessage", "Message", "MessageMatcher"]

_FEW = frozenset({"method", "type", "version"})
"""Names with few values, which would find all routes at once."""


@frozen
class Message:
    """Whether the first datagram of a flow is a message; it is all there, so the answer is never *need more*.

    Attributes:
        read: Reads the datagram to its end, and raises as `Cursor` does; one that ends too early is not such a message.
            It checks the first byte before anything else. It returns the fields of the message by name, one character a
            byte. All predicates of a protocol share the function.
        patterns: Patterns for some of these names. A message that does not have the name is a no.
        facts: The names of its facts in the access log.
        longest: The datagrams to wait for before the verdict is final: always one.
    """

    read: Callable[[Cursor], Mapping[str, str]]
    patterns: Mapping[str, Globs] = attrs.field(factory=dict)
    facts: Collection[str] = ()
    longest: int = attrs.field(default=1, init=False)
    _parse: Callable[[bytes, Any], Mapping[str, str] | None] = attrs.field(
        init=False, eq=False, repr=False
    )

    @_parse.default
    def _parser(self) -> Callable[[bytes, Any], Mapping[str, str] | None]:
        return parser(self.read)

    @property
    def first_bytes(self) -> frozenset[int] | None:
        return _first_bytes(self.read)

    @property
    def key(self) -> NameKey | None:
        return _key(self.patterns, self._parse)

    def __call__(self, peeked: Peeked, /) -> Verdict:
        fields: Mapping[str, str] | None = peeked.parsed(self._parse)
        is_match = _fits(fields, self.patterns) if self.patterns else fields is not None
        return Verdict.MATCH if is_match else Verdict.NO

    @property
    def learnt(self) -> Callable[[Peeked], dict[str, str]] | None:
        """Returns the facts of a flow, made safe for the log; ``None`` without facts. Predicates with the same reader and facts share it."""
        return _fact_reader(self._parse, tuple(self.facts)) if self.facts else None


@frozen
class FirstMessage:
    """Whether a stream begins with a message. Its names are read only where patterns ask for them, so the rest need not be awaited otherwise.

    Attributes:
        begins: Whether a stream begins so. It has the limit of what it reads.
        read: Reads the message from its first byte, and raises as `Cursor` does. It returns the fields by name, one
            character a byte. All predicates of a protocol share the function.
        most: The most bytes of a message; a longer one has no names.
        patterns: Patterns for some of these names. A message that does not have the name is a no.
        facts: The names of its facts in the access log.
    """

    begins: Predicate
    read: Callable[[Cursor], Mapping[str, str]]
    most: int
    patterns: Mapping[str, Globs] = attrs.field(factory=dict)
    facts: Collection[str] = ()

    @property
    def longest(self) -> int:
        return self.most if self.patterns else self.begins.longest

    @property
    def first_bytes(self) -> frozenset[int] | None:
        return getattr(self.begins, "first_bytes", None)

    @property
    def key(self) -> NameKey | None:
        return _key(self.patterns, _stream_parser(self.read, self.most), self.begins)

    def __call__(self, peeked: Peeked, /) -> Verdict:
        verdict = self.begins(peeked)
        if verdict is not Verdict.MATCH or not self.patterns:
            return verdict
        fields = peeked.parsed(_stream_parser(self.read, self.most))
        if isinstance(fields, ShortError):
            return Verdict.NEED_MORE
        return Verdict.MATCH if _fits(fields, self.patterns) else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        if self.begins(peeked) is not Verdict.MATCH:
            return {}
        return _fact_reader(_stream_parser(self.read, self.most), tuple(self.facts))(peeked)


def _fits(fields: Mapping[str, str] | None, patterns: Mapping[str, Globs]) -> bool:
    return fields is not None and all(
        name in fields and globs.matches(fields[name]) for name, globs in patterns.items()
    )


def _key(
    patterns: Mapping[str, Globs], parse: Callable[[bytes, Any], Any], begins: Any = None
) -> NameKey | None:
    found = (
        globs.key(_name_reader(name, globs.normal, parse, begins))
        for name, globs in patterns.items()
        if name not in _FEW
    )
    return next(filter(None, found), None)


@cache
def _name_reader(
    name: str, normal: Callable[[str], str] | None, parse: Callable[[bytes, Any], Any], begins: Any
) -> Callable[[Peeked], str | None]:
    def read(peeked: Peeked) -> str | None:
        verdict = Verdict.MATCH if begins is None else begins(peeked)
        fields = peeked.parsed(parse) if verdict is Verdict.MATCH else None
        if verdict is Verdict.NEED_MORE or isinstance(fields, ShortError):
            return None
        value: str = fields.get(name, "") if fields else ""
        return normal(value) if normal else value

    return read


@cache
def _stream_parser(
    read: Callable[[Cursor], Mapping[str, str]], most: int
) -> Callable[[bytes, Any], Mapping[str, str] | ShortError | None]:
    def parse(data: bytes, earlier: Any) -> Mapping[str, str] | ShortError | None:
        if isinstance(earlier, ShortError) and len(data) < min(earlier.needed, most):
            return earlier
        try:
            return read(Cursor(data[:most]))
        except ShortError as short:
            return short if len(data) < most else None
        except MalformedError:
            return None

    return parse


@cache
def parser(
    read: Callable[[Cursor], Mapping[str, str]],
) -> Callable[[bytes, Any], Mapping[str, str] | None]:
    # One for each reader, so that a datagram is read once for all predicates of a protocol.
    def parse(data: bytes, _earlier: object) -> Mapping[str, str] | None:
        try:
            return read(Cursor(data))
        except (ShortError, MalformedError):
            return None

    return parse


@cache
def _fact_reader(
    parse: Callable[[bytes, Any], Any], names: tuple[str, ...]
) -> Callable[[Peeked], dict[str, str]]:
    def facts_from(peeked: Peeked, /) -> dict[str, str]:
        fields = peeked.parsed(parse)
        if fields is None or isinstance(fields, ShortError):
            return {}
        return {name: printable(fields[name]) for name in names if fields.get(name)}

    return facts_from


@cache
def _first_bytes(read: Callable[[Cursor], Mapping[str, str]]) -> frozenset[int] | None:
    return possible_first_bytes(lambda data: verdict_of(data, read))


@implementer(IProtocolMatcher)
@frozen(slots=False)
class MessageMatcher:
    """A matcher whose messages have names: one reader, and its words. It is for UDP, or for TCP if it has `begins`.

    Args:
        name: The word after ``match =``: lower-case letters, digits and ``-``.
        summary: One line that says what is recognised.
        read: Reads the first datagram, see `Message`, or the first message of a stream, see `FirstMessage`.
        begins: Whether a stream begins with such a message.
        most: The most bytes of a message over TCP.
        options: Each takes patterns for the name that `read` gives.
        patterns: Reads the patterns of an option; `txmux.wire.globs.names` by default.
        facts: The names of its facts in the access log.
        source: Where the message is specified, for readers of the code.
    """

    name: str
    summary: str
    read: Callable[[Cursor], Mapping[str, str]]
    options: tuple[Option, ...] = attrs.field(default=(), kw_only=True)
    patterns: Mapping[str, Callable[[str], Globs]] = attrs.field(factory=dict, kw_only=True)
    facts: Collection[str] = attrs.field(default=(), kw_only=True)
    source: str = attrs.field(default="", kw_only=True)
    begins: Predicate | None = attrs.field(default=None, kw_only=True)
    most: int = attrs.field(default=0, kw_only=True)
    transports: Collection[Transport] = attrs.field(init=False)

    @transports.default
    def _transports(self) -> Collection[Transport]:
        return (Transport.UDP if self.begins is None else Transport.TCP,)

    def __attrs_post_init__(self) -> None:
        # Take `__module__` from the caller, so that `txmux matchers` can name the package.
        object.__setattr__(
            self, "__module__", sys._getframe(2).f_globals.get("__name__", "__main__")
        )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate.

        Raises:
            OptionError: Patterns cannot be used.
        """
        patterns = patterns_of(options, self.patterns)
        if self.begins is None:
            return Message(self.read, patterns, self.facts)
        return FirstMessage(self.begins, self.read, self.most, patterns, self.facts)


def patterns_of(
    options: Mapping[str, str], patterns: Mapping[str, Callable[[str], Globs]]
) -> dict[str, Globs]:
    """Read the patterns of all options.

    Args:
        options: Those of a ``match =`` line.
        patterns: What reads them, where it is not `txmux.wire.globs.names`.

    Raises:
        OptionError: Patterns cannot be used.
    """
    read = {name: option_globs(options, name, patterns.get(name, names)) for name in options}
    return {name: globs for name, globs in read.items() if globs is not None}
