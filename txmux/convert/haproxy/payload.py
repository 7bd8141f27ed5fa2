"""Tests of HAProxy on the first bytes, ``req.payload(OFFSET,LENGTH)``, as terms of txmux."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from txmux.convert.matching import regex_text, searched
from txmux.convert.terms import Condition, InexpressibleError, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 65536
_WITHIN = 256


def payload(
    args: str, converters: Sequence[str], method: str, values: Sequence[str], *, ignore_case: bool
) -> Condition:
    """Return what such a test asks for.

    Args:
        args: ``OFFSET,LENGTH``; a length of 0 is all that there is.
        converters: At most ``hex``, ``lower`` or ``upper``.
        method: ``bin`` if it is left out.
        values: Hex digits, texts or regular expressions; one that is found is enough.
        ignore_case: Of texts and regular expressions.
    """
    found = re.fullmatch(r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", args)
    if found is None:
        raise InexpressibleError(f"req.payload({args}) has no counterpart")
    offset, length = int(found[1]), int(found[2])
    hexadecimal = "hex" in converters
    if set(converters) - {"hex", "lower", "upper"} or (hexadecimal and len(converters) > 1):
        raise InexpressibleError(f"the converter {converters[0]} has no counterpart")
    folded = ignore_case or (bool(converters) and not hexadecimal)
    method = method or "bin"
    if method == "found":
        return (_regex(offset, f"(?s:.{{{max(length, 1)}}})", max(length, 1)),)
    if hexadecimal and method not in {"str", "beg"}:
        raise InexpressibleError(f"hex with -m {method} has no counterpart")
    if method == "reg":
        return tuple(_pattern(offset, length, value, folded=folded) for value in values)
    return tuple(
        term
        for value in values
        for term in _bytes(
            offset,
            length,
            method,
            _data(value, hexadecimal=hexadecimal or method == "bin"),
            folded=folded,
        )
    )


def _data(value: str, *, hexadecimal: bool) -> bytes:
    if not hexadecimal:
        return value.encode("latin-1", "replace")
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise InexpressibleError(f"'{value}' is not pairs of hex digits") from None


def _bytes(offset: int, length: int, method: str, data: bytes, *, folded: bool) -> list[Term]:
    if not data or (length and len(data) > length):
        return []
    if method in {"bin", "str"}:
        if not length:
            raise InexpressibleError("compares all bytes there are, and more may be on their way")
        if len(data) != length:
            return []
    elif method == "end" and length:
        offset += length - len(data)
    elif method == "sub":
        pattern = re.escape(data).decode("latin-1")
        return [_pattern(offset, length, pattern, folded=folded)]
    elif method != "beg":
        raise InexpressibleError(f"-m {method} has no counterpart")
    if method == "beg" and len(data) < length:
        # It is compared only when all bytes are there.
        text = regex_text(re.escape(data).decode("latin-1"))
        text = f"(?i:{text})" if folded else text
        return [_regex(offset, f"{text}(?s:.{{{length - len(data)}}})", length)]
    if folded and method != "bin":
        text = regex_text(re.escape(data).decode("latin-1"))
        return [_regex(offset, f"(?i:{text})", len(data))]
    place = (("offset", str(offset)),) if offset else ()
    return [Term("payload", (*place, ("hex", data.hex())))]


def _pattern(offset: int, length: int, pattern: str, *, folded: bool) -> Term:
    text = searched(regex_text(pattern))
    return _regex(offset, f"(?i:{text})" if folded else text, length or _WITHIN)


def _regex(offset: int, pattern: str, length: int) -> Term:
    before = f"(?s:.{{{offset}}})" if offset else ""
    # After other bytes, the beginning is no longer that of the stream.
    text = pattern.removeprefix("^") if before else pattern
    if before and "^" in text.replace("[^", ""):
        raise InexpressibleError("has a ^ in the middle of a regular expression")
    within = str(min(offset + length, _LONGEST))
    return Term("regex", (("pattern", before + text), ("within", within)))
