"""The first bytes and datagrams of real clients of every protocol, from all tests that have some."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from tests import matchers
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import Transport

if TYPE_CHECKING:
    from txmux.interfaces import IProtocolMatcher

_PREFIX = "test_"


def all_samples(attribute: str = "SAMPLES") -> dict[str, tuple[bytes, ...]]:
    """Collect the samples of all test modules here, by the name of the matcher that they are for.

    Args:
        attribute: ``SAMPLES`` are streams, ``DATAGRAMS`` the first datagrams of flows.
    """
    found = {}
    for module in pkgutil.iter_modules(matchers.__path__):
        if module.name.startswith(_PREFIX):
            samples = getattr(import_module(f"{matchers.__name__}.{module.name}"), attribute, None)
            if samples:
                found[module.name.removeprefix(_PREFIX).replace("_", "-")] = tuple(samples)
    return found


def for_streams() -> dict[str, IProtocolMatcher]:
    """Give the installed matchers that are for TCP."""
    return {
        name: matcher
        for name, matcher in installed_matchers().items()
        if Transport.TCP in transports_of(matcher)
    }
