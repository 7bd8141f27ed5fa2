"""The samples of every protocol, from the test file of its matcher.

``test_X.py`` has them as data; `tests/matchers/test_samples.py` tests matcher ``X`` by it, and all others:

- ``SAMPLES``: first bytes of real clients, with a comment that says where each is from. It has to match them: at the byte
  ``DECIDED_AT`` says, for all of them or for each.
- ``MATCHED``, ``REFUSED``: what it has to match besides, and to refuse; as bytes, or with the byte at which that is due.
- ``UNDECIDED``: what is not enough for either, beyond the beginnings of those.
- ``DATAGRAMS``, ``MATCHED_DATAGRAMS`` and so on: the same of flows, by their first datagram or several.
- ``VERDICTS``, ``DATAGRAM_VERDICTS``: options as a line of the rules has them (or a dictionary, if values have blanks), bytes,
  what it makes of them, and at which byte.
- ``FACTS``, ``DATAGRAM_FACTS``: options, bytes, and what is learnt of them.
- ``KEYS``, ``DATAGRAM_KEYS``: options, bytes, and the name by which routes are looked up; ``None`` as long as it is unknown.
- ``TRIED``: options beside those of the examples with which any bytes at all are tried, those of ``TRIED_ON`` among them, or the samples.
- ``UNUSABLE``: options that are an error, and a part of its message.
"""

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from tests import matchers
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import IProtocolMatcher, Transport, Verdict

Facts = tuple[tuple[str, bytes | tuple[bytes, ...], dict[str, str]], ...]

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE
CONFIGURED = frozenset({"any", "payload", "regex", "silent"})
"""These match what their line says, not a protocol."""


@cache
def sample_files() -> dict[str, list[ModuleType]]:
    """Import the test files of all matchers, by the matcher's name: ``test_X.py``, then those that begin with ``test_X_``."""
    stems = sorted(module.name for module in pkgutil.iter_modules(matchers.__path__))
    found = {}
    for name in installed_matchers():
        begin = f"test_{name.replace('-', '_')}"
        theirs = [stem for stem in stems if stem == begin or stem.startswith(f"{begin}_")]
        found[name] = [import_module(f"{matchers.__name__}.{stem}") for stem in theirs]
    return found


def all_samples(attribute: str = "SAMPLES") -> dict[str, tuple[Any, ...]]:
    """Collect what the files of matchers have by this name, by the matcher's."""
    found = {
        name: tuple(row for file in files for row in getattr(file, attribute, ()))
        for name, files in sample_files().items()
    }
    return {name: rows for name, rows in found.items() if rows}


def for_streams() -> dict[str, IProtocolMatcher]:
    return {
        name: matcher
        for name, matcher in installed_matchers().items()
        if Transport.TCP in transports_of(matcher)
    }
