"""Rules for tests of the core that name features, too: what needs one that is not installed is left out."""

import re

from txmux.rules.optional import WORDS, missing


def names_missing(text: str) -> bool:
    """Return whether a text has a key, or the beginning of networks, of a feature that is not installed."""
    words = (word for words in WORDS.values() for word in words if missing(word))
    return any(re.search(rf"\b{re.escape(word)}", text) for word in words)


def as_installed(rules: str) -> str:
    """Leave out of rules the keys and the networks of features that are not installed."""
    lines = []
    for line in rules.splitlines(keepends=True):
        key, equals, value = line.partition(" = ")
        there = [part for part in value.strip().split(", ") if not names_missing(part)]
        if equals and (missing(key.strip()) or not there):
            continue
        is_whole = ", ".join(there) == value.strip()
        lines.append(line if is_whole else f"{key} = {', '.join(there)}\n")
    return "".join(lines)
