"""Patterns of users, and streams for them: a pattern is taken or refused, and its verdicts do not depend on the cuts."""

from __future__ import annotations

from campaign.fuzz.target import Target, see
from txmux.errors import OptionError
from txmux.matchers.regex import regex
from txmux.testing import decided

_WORDS = (
    b"(a+)+", b"(a|aa)+", b"(a*)*b", b"(?:", b"{1,9}", b"{2,}", b"[^a]", b"(?i)", b"(?s:.)",
    b"(?m:^)", rb"\b", rb"\B", rb"\x00", rb"\d", rb"\w", b"*?", b"|", b"$", b"(?=", b"\\1",
)  # fmt: skip


def _check(data: bytes) -> None:
    pattern, _, stream = data.partition(b"\0")
    options = {"pattern": pattern.decode("utf-8", "surrogateescape"), "within": "300"}
    try:
        predicate = regex.predicate(options)
    except OptionError as error:
        see(error.option in {"pattern", "within"})
        see("\n" not in str(error))
        return
    if stream:
        decided(predicate, stream)


def _seeds() -> list[bytes]:
    return [
        *(b"(a+)+b\0aaaaac", b"(a|aa)+b\0aaab", b"((a*)*|b)*c\0abac", b"(?i)GET|PUT\0put"),
        *(rb"(?s:.{4})\x00[\x01-\x05]" + b"\0abcd\0\1", rb"(?m:^)(?:\B|a)-" + b"\0a-"),
        *(rb"(\d{1,3}\.){3}\d{1,3}\s" + b"\0127.0.0.1 ", b"((a{1,9}){1,9}){1,9}b\0aaaa"),
    ]


TARGET = Target(_check, _seeds, words=_WORDS, longest=250)
