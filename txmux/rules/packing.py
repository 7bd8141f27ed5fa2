"""Rules as bytes, so that another process of the same version need not parse their text."""

import copyreg
import io
import pickle  # nosec B403 - see `unpack`
from collections.abc import Mapping
from weakref import WeakValueDictionary

import attrs

from txmux.detection.registry import installed_matchers
from txmux.interfaces import IProtocolMatcher
from txmux.rules.collecting import uncollected
from txmux.rules.model import Alternative, Rules
from txmux.rules.reading.matching import read_alternative


def pack(rules: Rules) -> bytes:
    """Turn rules that were read from a file, with the installed matchers, into bytes for `unpack`."""
    packed = io.BytesIO()
    pickler = pickle.Pickler(packed)
    # A predicate is whatever the author of a matcher has made it, so the line that it was made of goes in its place.
    pickler.dispatch_table = copyreg.dispatch_table | {Alternative: lambda it: (_read, (it.text,))}
    with uncollected():
        pickler.dump(attrs.evolve(rules, shifts={}))  # without what it has found by its routes
    return packed.getvalue()


def unpack(packed: bytes) -> Rules:
    """Make the rules again that `pack` was given.

    Args:
        packed: From a trusted process: unpickling executes code.

    Raises:
        InvalidValueError: A matcher refuses a line that it took in the other process.
    """
    global _matchers  # noqa: PLW0603 - nothing else gets to `_read`
    _matchers = installed_matchers()
    with uncollected():
        rules: Rules = pickle.loads(packed)  # nosec B301  # noqa: S301 - as above
    return rules


_at_fork: Rules | None = None
"""The rules that this process had when it forked, or was forked."""


def share_with_forks(rules: Rules) -> None:
    global _at_fork  # noqa: PLW0603 - it is about the process
    _at_fork = rules


def rules_at_fork() -> Rules | None:
    """Return the rules that need not be sent to processes which this one has forked, since they share its memory."""
    return _at_fork


_known: WeakValueDictionary[str, Alternative] = WeakValueDictionary()
"""The lines of rules in use: a reload changes few of them."""
_matchers: Mapping[str, IProtocolMatcher] = {}


def _read(text: str) -> Alternative:
    alternative = _known.get(text)
    if alternative is None:
        alternative = _known[text] = read_alternative(text, _matchers)
    return alternative
