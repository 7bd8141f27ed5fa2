"""JSON (RFC 8259) from untrusted peers. Pure."""

import json
import math
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Generator
from typing import Any

MISSHAPEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The exceptions of reading values of unexpected types: a list as an object, or an infinite number."""


def parse_json(text: str | bytes) -> Any:
    """Read a JSON text.

    Args:
        text: The text; bytes are UTF-8, or UTF-16 or UTF-32, by their first ones.

    Returns:
        Its value: a dictionary, a list, a string, a number, a truth value or ``None``.

    Raises:
        ValueError: It is not JSON, or its arrays and objects are nested more deeply than Python can read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_BLANKS = re.compile(r"[ \t\n\r]*")
_PART = 1 << 16  # characters after which an item that is not whole yet is read again
_LONGEST = 1 << 18
_MOST_LISTS = 20


class JsonLines:
    """Reads a stream of JSON texts, one a line, as it comes.

    Args:
        take: Called with each value.
        longest: The most bytes of a line.
        error: Makes the exception for a line that is none, from a message.
    """

    def __init__(
        self, take: Callable[[Any], object], longest: int, error: Callable[[str], Exception]
    ) -> None:
        self._take = take
        self._longest = longest
        self._error = error
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Read on; raises `error`, or what `take` raises."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._longest:
            raise self._error("an event has no end")
        try:
            for line in filter(None, map(bytes.strip, lines)):
                self._take(parse_json(line))
        except ValueError:
            raise self._error("an event is no JSON") from None


class JsonLists:
    """Reads the items of lists one by one as a text in UTF-8 arrives, of which little more than an item is in memory.

    The text is a list, or an object whose values are lists or ``null``.

    Args:
        take: Called with the name of a list, empty if the text is one, and an item of it.

    Attributes:
        names: Those of the lists that have begun.
    """

    def __init__(self, take: Callable[[str, Any], object]) -> None:
        self._take = take
        self.names: set[str] = set()
        self._decoder = getincrementaldecoder("utf-8")()
        self._read_value = json.JSONDecoder().raw_decode
        self._text, self._at, self._due = "", 0, 0
        self._is_whole = False
        self._reading = self._read()

    def feed(self, data: bytes) -> None:
        """Read on; raises `ValueError` if this cannot be such a text, or what `take` raises."""
        self._text += self._decoder.decode(data)
        if len(self._text) >= self._due:
            self._read_on()
            if len(self._text) > _LONGEST:
                raise ValueError(f"an item is longer than {_LONGEST} characters")
            self._due = len(self._text) + _PART

    def end(self) -> None:
        """Read the rest; as `feed`, also if the text ends early."""
        self._text += self._decoder.decode(b"", final=True)
        self._is_whole = True
        self._read_on()

    def _read_on(self) -> None:
        if next(self._reading, True):
            raise ValueError("it was wrong before")
        self._text, self._at = self._text[self._at :], 0

    def _read(self) -> Generator[None, None, None]:
        """Yield where more of the text is needed."""
        if (yield from self._mark("[{")) == "[":
            yield from self._items("")
        elif (yield from self._peek()) == "}":
            self._at += 1
        else:
            mark = ","
            while mark == ",":
                name = str((yield from self._value()))
                yield from self._mark(":")
                if (yield from self._peek()) == "[":
                    self._at += 1
                    yield from self._items(name)
                elif (yield from self._value()) is not None:
                    raise ValueError(f"{name[:20]!r} is no list")
                self.names.add(name)
                if len(self.names) > _MOST_LISTS:
                    raise ValueError(f"there are more than {_MOST_LISTS} lists")
                mark = yield from self._mark(",}")
        while True:
            self._skip_blanks()
            if self._at < len(self._text):
                raise ValueError("something comes after it")
            yield

    def _items(self, name: str) -> Generator[None, None, None]:
        self.names.add(name)
        if (yield from self._peek()) == "]":
            self._at += 1
            return
        mark = ","
        while mark == ",":
            item = yield from self._value()
            mark = yield from self._mark(",]")
            self._take(name, item)

    def _value(self) -> Generator[None, None, Any]:
        while True:
            self._skip_blanks()
            try:
                value, end = self._read_value(self._text, self._at)
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            except ValueError:
                if self._is_whole:
                    raise
            else:
                # Another part may have more digits of a number, whose '0.' alone is read as 0.
                if self._is_whole or self._text[end : end + 1] not in ("", *".eE"):
                    self._at = end
                    return value
            yield

    def _mark(self, marks: str) -> Generator[None, None, str]:
        mark = yield from self._peek()
        if mark not in marks:
            raise ValueError(f"it has {mark!r} where {' or '.join(marks)} is due")
        self._at += 1
        return mark

    def _peek(self) -> Generator[None, None, str]:
        self._skip_blanks()
        while self._at >= len(self._text):
            if self._is_whole:
                raise ValueError("it ends early")
            yield
            self._skip_blanks()
        return self._text[self._at]

    def _skip_blanks(self) -> None:
        blanks = _BLANKS.match(self._text, self._at)
        self._at = blanks.end() if blanks else self._at


def time_of(value: Any) -> float:
    """Read seconds since 1970.

    Raises:
        ValueError: They are not finite. Also `TypeError` and `OverflowError`.
    """
    time = float(value)
    if not math.isfinite(time):
        raise ValueError(f"{value!r} is not a time")
    return time
