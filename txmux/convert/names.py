"""Patterns of names of which both have to fit, as one list of patterns."""

from __future__ import annotations

from itertools import product

from txmux.wire.globs import names

_WILD = frozenset("*?")


def common_names(a: str, b: str) -> str | None:
    """Return patterns that fit the names which fit both of two lists of patterns.

    Args:
        a: Patterns of names, as options of matchers have them.
        b: Others.

    Returns:
        Nothing if no name fits both; ``None`` if that cannot be written.
    """
    found: list[str] = []
    for one, other in product(_patterns(a), _patterns(b)):
        both = _both(one, other)
        if both is None:
            return None
        found += both
    if any(pattern.startswith("~") for pattern in found) and len(found) > 1:
        return None
    return ",".join(dict.fromkeys(found))


def _patterns(text: str) -> list[str]:
    if text.startswith("~"):
        return [text]
    # One with a dot in front is the name itself, and those below it.
    items = [
        (item[1:], f"*{item}") if item.startswith(".") else (item,) for item in text.split(",")
    ]
    return [pattern for item in items for pattern in item]


def _both(a: str, b: str) -> list[str] | None:
    if b in {a, "*"}:
        return [a]
    if a == "*":
        return [b]
    for one, other in ((a, b), (b, a)):
        if not one.startswith("~") and not set(one) & _WILD:
            return [one] if names(other).matches(one) else []
    if a.startswith("~") or b.startswith("~") or "?" in a + b:
        return None
    first, second = a.split("*"), b.split("*")
    if len(first) != 2 or len(second) != 2:
        return None
    return _around(first, second)


def _around(first: list[str], second: list[str]) -> list[str]:
    """Join two patterns with one ``*`` each."""
    heads, tails = (sorted({one, other}, key=len) for one, other in zip(first, second, strict=True))
    head, tail = heads[-1], tails[-1]
    if not head.startswith(heads[0]) or not tail.endswith(tails[0]):
        return []
    # The head of one and the tail of the other may share some characters, but not within the same pattern.
    least = max(len(first[0]) + len(first[1]), len(second[0]) + len(second[1]))
    shared = [
        head + tail[size:]
        for size in range(1, min(len(head), len(tail)) + 1)
        if head.endswith(tail[:size]) and len(head) + len(tail) - size >= least
    ]
    return [f"{head}*{tail}", *shared]
