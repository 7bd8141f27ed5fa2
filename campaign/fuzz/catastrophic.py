"""Patterns that take engines which try one way after another for ever, and streams that make them."""

from __future__ import annotations

import random

from txmux.interfaces import Predicate
from txmux.matchers.regex import regex

PATTERNS = (
    "(a+)+b", "(a|aa)+b", "(a*)*b", "(a|a?)+b", "(a|b|ab)*c", "([a-z]+)*1", "(.*a){20}b",
    "(a?){50}a{50}b", "((a{1,9}){1,9}){1,9}b", "(x+x+)+y", "(([ab])+.)+[cd]{10}", r"(\d+)*\D\d*!",
    "(a|b)*a(a|b){12}c", "(?s:.)*a(?s:.){200}b", r"^(([a-z])+.)+[A-Z]([a-z])+z", "(.*)*(.*)*c",
)  # fmt: skip
WITHIN = "32KiB"


def streams(size: int) -> list[bytes]:
    """Give streams of a size that leave most of the patterns undecided to their end."""
    chance = random.Random(size)
    return [
        b"a" * size,
        b"x" * size,
        b"1" * size,
        bytes(chance.choice(b"ab") for _ in range(size)),
        bytes(chance.choice(b"az1 ") for _ in range(size)),
    ]


def predicate(pattern: str) -> Predicate:
    return regex.predicate({"pattern": pattern, "within": WITHIN})
