from collections.abc import Callable, Mapping
from typing import Any

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, NameKey, Option, Peeked, Transport, Verdict

HELLO = b"HELLO\n"


def greets(peeked: Peeked, longest: int = 64) -> Verdict:
    """Say without fault whether a client sends a line that begins with ``HELLO``."""
    data = peeked.data[:longest]
    if not (data.startswith(HELLO[:5]) or HELLO[:5].startswith(data)):
        return Verdict.NO
    if b"\n" in data:
        return Verdict.MATCH
    return Verdict.NO if len(data) == longest else Verdict.NEED_MORE


class Greeting:
    """A predicate that answers by a function, and has these attributes."""

    longest: Any = 64

    def __init__(self, answer: Callable[[Any], Any] = greets, **attributes: Any) -> None:
        self._answer = answer
        vars(self).update(attributes)

    def __call__(self, asked: Any, /) -> Any:
        return self._answer(asked)


@implementer(IProtocolMatcher)
@attrs.frozen
class Matcher:
    make: Callable[[Mapping[str, str]], Any] = lambda _: Greeting()
    options: Any = ()
    name: str = "greeting"
    summary: str = "clients that say HELLO"
    transports: Any = (Transport.TCP,)

    def predicate(self, options: Mapping[str, str]) -> Any:
        return self.make(options)


def name_of(peeked: Peeked) -> str | None:
    line, end, _ = peeked.data.partition(b"\n")
    return line[6:].decode("latin-1") if end else None


KEY = NameKey(name_of, exact=frozenset({"alice"}), under=frozenset({"example.com"}))
OPTION = Option("word", "what is said", "HELLO")
