"""Rules as bytes, so that another process of the same version need not parse their text."""

import copyreg
import io
import pickle  # nosec B403 - see `unpack`
from weakref import WeakValueDictionary

from txmux.detection.registry import installed_matchers
from txmux.rules.model import Alternative, Rules
from txmux.rules.reading.matching import read_alternative


def pack(rules: Rules) -> bytes:
    """Turn rules that were read from a file, with the installed matchers, into bytes for `unpack`."""
    packed = io.BytesIO()
    pickler = pickle.Pickler(packed)
    # A predicate is whatever the author of a matcher has made it, so the line that it was made of goes in its place.
    pickler.dispatch_table = copyreg.dispatch_table | {Alternative: lambda it: (_read, (it.text,))}
    pickler.dump(rules)
    return packed.getvalue()


def unpack(packed: bytes) -> Rules:
    """Make the rules again that `pack` was given.

    Args:
        packed: From a trusted process: unpickling executes code.

    Raises:
        InvalidValueError: A matcher refuses a line that it took in the other process.
    """
    rules: Rules = pickle.loads(packed)  # nosec B301  # noqa: S301 - as above
    return rules


_known: WeakValueDictionary[str, Alternative] = WeakValueDictionary()
"""The lines of rules in use: a reload changes few of them."""


def _read(text: str) -> Alternative:
    alternative = _known.get(text)
    if alternative is None:
        alternative = _known[text] = read_alternative(text, installed_matchers())
    return alternative
