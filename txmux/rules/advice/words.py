"""Which of the known words is nearest to one that is not known, and how a message says so."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile

from txmux.errors import MuxError, joined

Texts = Sequence[str]

_MOST_LIKE, _MOST_MEANT, _MOST_KNOWN, _LONGEST = 8, 3, 1000, 64
_ASIDE = re.compile(r" \([^()]*\)$")
_UNKNOWN = re.compile(r"unknown (?:kind |option )?'([^'=]+)")


def nearest(word: str, known: Iterable[str]) -> str | None:
    return next(iter(_all_nearest(word, known)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'ssh'?`` with the nearest known words, the commonest first in `known`; empty if none is near."""
    near = _all_nearest(word, known)[:_MOST_MEANT]
    if near[:1] == [word]:  # what is wrong is something else
        return ""
    return f"; did you mean {joined([repr(name) for name in near])}?" if near else ""


def _all_nearest(word: str, known: Iterable[str]) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415 - only errors need it

    word = word.casefold()
    if len(word) > _LONGEST:
        return []
    few = (name for name in islice(known, _MOST_KNOWN) if len(name) <= _LONGEST)
    by_folded = {name.casefold(): name for name in few}
    alike = {*get_close_matches(word, by_folded, n=_MOST_LIKE)}
    alike.update([name for name in by_folded if sorted(name) == sorted(word)][:_MOST_LIKE])
    distances = {name: _distance(word, name) for name in by_folded if name in alike}
    # What shares letters in one order with another word, but has much to change, is another word. What several words
    # begin with, as with `admin_`, says nothing of the rest.
    distances = {
        name: distance
        for name, distance in distances.items()
        if name in word
        or name.startswith(word)
        or sorted(name) == sorted(word)
        or (
            distance < len(name)
            and 3 * distance <= len(max(word, name, key=len)) - _shared(word, name)
        )
    }
    least = min(distances.values(), default=0)
    near = [name for name, distance in distances.items() if distance == least]
    # Two letters in each other's place are a slip of the fingers; another letter may be another word.
    swapped = [name for name in near if sorted(name) == sorted(word)]
    return [by_folded[name] for name in swapped or near]


def _shared(word: str, other: str) -> int:
    """Return the length of the parts that both words begin with, each up to a ``_`` or ``-``."""
    parts = zip(*(re.split("(?<=[_-])", one) for one in (word, other)), strict=False)
    return sum(len(part) for part, _ in takewhile(lambda both: both[0] == both[1], parts))


def _distance(word: str, other: str) -> int:
    # Letters to be changed, added or left out, or swapped with the next one.
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(word, 1):
        two_before, before, row = before, row, [at]
        for place, its in enumerate(other, 1):
            costs = [before[place] + 1, row[place - 1] + 1, before[place - 1] + (letter != its)]
            if place > 1 and at > 1 and (letter, word[at - 2]) == (other[place - 2], its):
                costs.append(two_before[place - 2] + 1)
            row.append(min(costs))
    return row[-1]


def with_advice(message: str, advice: str) -> str:
    """Add advice to a message, as a sentence of its own after a question."""
    if not advice or advice in message:
        return message
    if message.endswith("?"):
        return f"{message} {advice[0].upper()}{advice[1:]}"
    return f"{message}; {advice}"


def with_hint(message: str, hint: str) -> str:
    """Add a hint to a message, before what it has in parentheses at its end."""
    aside = _ASIDE.search(message)
    end = aside.start() if aside else len(message)
    return f"{message[:end]}{hint}{message[end:]}"


def word_first(messages: Texts, word: str, known: Iterable[str]) -> Texts:
    """Put the nearest known word before what the message says at its end."""
    problem, _, advice = messages[0].rpartition("; ")
    return [with_advice(f"{problem}{did_you_mean(word, known)}", advice)]


def hinted(messages: Texts, hint: str) -> Texts:
    return [with_hint(message, hint) for message in messages]


def near(messages: Texts, word: str, known: Iterable[str]) -> Texts:
    return hinted(messages, did_you_mean(word, known))


def near_unknown(messages: Texts, known: Iterable[str]) -> Texts:
    """Add the nearest known word to each message that names an unknown one."""
    unknown = [(one, _UNKNOWN.search(one)) for one in messages]
    return [with_hint(one, did_you_mean(word[1], known) if word else "") for one, word in unknown]


def is_read(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except MuxError:
        return False
    return True


def like_key(text: str) -> str:
    """Return what would be the key if a line that continues a value were not indented."""
    key, equals, _ = text.partition("=")
    return key.strip() if equals else ""
