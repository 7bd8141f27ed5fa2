"""Ask a predicate once, and check what it tells with that: of a stream, or of datagrams."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from txmux.interfaces import Datagrams, Key, Peeked, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from txmux.interfaces import Predicate

    Sample: TypeAlias = Peeked | bytes | Sequence[bytes]

__all__ = ["ask", "check_first_byte", "check_key", "facts", "fail", "shown"]

_SHOWN, _SHOWN_OF_SEVERAL = 120, 60
_LONGEST_FACT = 255


def ask(predicate: Predicate, sample: Peeked) -> Verdict:
    """Return its verdict.

    Args:
        predicate: What a matcher made of its options.
        sample: The first bytes of a stream, or the first datagrams of a flow.

    Raises:
        AssertionError: It raised, or gave something else.
    """
    try:
        verdict = predicate(sample)
    except Exception as error:
        raise AssertionError(
            f"the predicate raised {error!r} with {len(sample)} bytes: {shown(sample)}"
        ) from error
    if not isinstance(verdict, Verdict):
        fail(f"the predicate gave {verdict!r}, not a Verdict", sample)
    return verdict


def facts(predicate: Predicate, sample: Peeked) -> dict[str, str]:
    """Return what a predicate has learnt, if it learns at all, and check that it is fit for a log.

    Args:
        predicate: What a matcher made of its options.
        sample: As for `ask`.

    Raises:
        AssertionError: A name is not a word, or a value is more than 255 printable ASCII characters.
    """
    learnt = getattr(predicate, "learnt", None)
    if learnt is None:
        return {}
    try:
        known = learnt(sample)
    except Exception as error:
        raise AssertionError(f"learnt raised {error!r} of {shown(sample)}") from error
    if not isinstance(known, Mapping):
        fail(f"learnt gave {known!r}, not a mapping", sample)
    for name, fact in known.items():
        if not (isinstance(name, str) and re.fullmatch("[a-z][a-z0-9_]*", name)):
            fail(f"the fact {name!r} must be called by a lower-case word", sample)
        if not (isinstance(fact, str) and fact.isascii() and fact.isprintable()):
            fail(f"the fact {name} is {fact!r}, not printable ASCII", sample)
        if len(fact) > _LONGEST_FACT:
            fail(f"the fact {name} has {len(fact)} characters, more than 255", sample)
    return dict(known)


def check_first_byte(predicate: Predicate, sample: Peeked, verdict: Verdict) -> None:
    """Check that a sample is ruled out whose first byte is not among those that are told.

    Args:
        predicate: What a matcher made of its options.
        sample: As for `ask`.
        verdict: On the sample.

    Raises:
        AssertionError: It is not.
    """
    first = getattr(predicate, "first_bytes", None)
    data = sample.data
    if first is not None and data and data[0] not in first and verdict is not Verdict.NO:
        fail(f"{verdict.name}, but first_bytes has no {data[0]:#04x}", sample)


def check_key(
    predicate: Predicate, sample: Peeked, verdict: Verdict, before: str | None
) -> str | None:
    """Check that the key's name, once read, stays the same, and that a strange name is a ``NO``.

    Args:
        predicate: What a matcher made of its options.
        sample: As for `ask`.
        verdict: On the sample.
        before: The name in less of it; ``None`` if it was not known.

    Returns:
        The name, if it is known.

    Raises:
        AssertionError: The name has changed, or is strange.
    """
    key: Key | None = getattr(predicate, "key", None)
    if key is None:
        return None
    try:
        name = key.read(sample)
    except Exception as error:
        raise AssertionError(f"key.read raised {error!r} of {shown(sample)}") from error
    if before is not None and name != before:
        unit = "datagrams" if isinstance(sample, Datagrams) else "bytes"
        fail(f"key.read gave {name!r} after {before!r} for fewer {unit}", sample)
    if name is not None and verdict is not Verdict.NO and not _is_below(name, key):
        fail(f"{verdict.name}, but the key has no {name!r}", sample)
    return name


def _is_below(name: str, key: Key) -> bool:
    """Return whether a key has a name, or one that it is below."""
    labels = name.split(".")
    parents = (".".join(labels[n:]) for n in range(1, len(labels)))
    return name in key.exact or not key.under.isdisjoint(parents)


def fail(message: str, sample: Sample) -> NoReturn:
    """Raise an `AssertionError` that names the sample."""
    raise AssertionError(f"{message}: {shown(sample)}")


def shown(sample: Sample) -> str:
    """Name a sample in a message: its bytes, or the first of them and how many there are."""
    if isinstance(sample, Datagrams):
        sample = sample.datagrams
    if isinstance(sample, Peeked):
        sample = sample.data
    if isinstance(sample, bytes):
        return _shown(sample, _SHOWN)
    return f"[{', '.join(_shown(one, _SHOWN_OF_SEVERAL) for one in sample)}]"


def _shown(data: bytes, most: int) -> str:
    return repr(data) if len(data) <= most else f"{data[:most]!r}… ({len(data)} bytes)"
