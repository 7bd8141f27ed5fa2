"""The matcher for fixed bytes at a fixed place, for protocols that have no matcher of their own."""

import operator
import re
from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import frozen
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Transport, Verdict
from txmux.wire.predicates import begins_with

_LARGEST_OFFSET = 65536
_PIECE = re.compile(r"\\x[0-9A-Fa-f]{2}|\\.?|[^\\]+", re.DOTALL)
_ESCAPES = {r"\r": b"\r", r"\n": b"\n", r"\t": b"\t", r"\0": b"\0", r"\\": b"\\"}


@frozen
class _PayloadPredicate:
    offset: int
    value: bytes
    mask: bytes | None

    @property
    def longest(self) -> int:
        return self.offset + len(self.value)

    @property
    def first_bytes(self) -> frozenset[int] | None:
        if self.offset:
            return None
        mask = self.mask[0] if self.mask else 0xFF
        return frozenset(byte for byte in range(256) if byte & mask == self.value[0])

    def __call__(self, peeked: Peeked, /) -> Verdict:
        there = peeked.data[self.offset : self.longest]
        return begins_with(_masked(there, self.mask), self.value)


@implementer(IProtocolMatcher)
class PayloadMatcher:
    """Matches bytes that the rules file spells out."""

    name = "payload"
    transports = tuple(Transport)
    summary = "given bytes at a given offset"
    options = (
        Option("offset", "how many bytes of the stream come before them, 0 to 65536 (0)", "4"),
        Option("text", r"the bytes as text, with \r \n \t \0 \\ and \xNN for one byte", "JDWP-"),
        Option(
            "hex", "the bytes as pairs of hex digits; blanks and colons may part them", "16 03 01"
        ),
        Option("mask", "which bits count, in hex, as long as the bytes (all of them)", "ff ff fc"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        value = _value(options)
        mask = bytes_from_hex("mask", options["mask"]) if "mask" in options else None
        if mask is not None and len(mask) != len(value):
            compared = f"{_count(value)} {'is' if len(value) == 1 else 'are'} compared"
            raise OptionError("mask", f"has {_count(mask)}, but {compared}; make it as long")
        return _PayloadPredicate(_offset(options.get("offset", "0")), _masked(value, mask), mask)


payload = PayloadMatcher()


def _masked(data: bytes, mask: bytes | None) -> bytes:
    return data if mask is None else bytes(map(operator.and_, data, mask))


def _count(data: bytes) -> str:
    return f"{len(data)} byte{'' if len(data) == 1 else 's'}"


def _value(options: Mapping[str, str]) -> bytes:
    if "text" in options and "hex" in options:
        raise OptionError(None, "takes text= or hex=, not both; keep one")
    if "text" in options:
        name, value = "text", bytes_from_text(options["text"])
    elif "hex" in options:
        name, value = "hex", bytes_from_hex("hex", options["hex"])
    else:
        raise OptionError(None, "needs the bytes to look for; write text= or hex=")
    if not value:
        raise OptionError(name, "is empty; write the bytes to look for")
    return value


def _offset(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > _LARGEST_OFFSET:
        raise OptionError("offset", f"{text!r} is not a whole number from 0 to {_LARGEST_OFFSET}")
    return int(text)


def bytes_from_hex(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", " "))
    except ValueError as error:
        message = f"{text!r} is not hex; write pairs of hex digits such as 160301"
        raise OptionError(name, message) from error


def bytes_from_text(text: str) -> bytes:
    r"""Read text, in UTF-8, with ``\r \n \t \0 \\`` and ``\xNN`` for one byte."""
    try:
        return b"".join(map(_piece, _PIECE.findall(text)))
    except UnicodeEncodeError:
        raise OptionError("text", r"is not valid UTF-8; write such bytes as \xNN") from None


def _piece(piece: str) -> bytes:
    if not piece.startswith("\\"):
        return piece.encode()
    if len(piece) == 4:
        return bytes.fromhex(piece[2:])
    if piece not in _ESCAPES:
        message = rf"{piece} is not an escape; there are \r \n \t \0 \xNN, and \\ for a backslash"
        raise OptionError("text", message)
    return _ESCAPES[piece]
