"""The first bytes of real clients of every protocol, from all tests that have some."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests import matchers

_PREFIX = "test_"


def all_samples() -> dict[str, tuple[bytes, ...]]:
    """Collect the ``SAMPLES`` of all test modules here, by the name of the matcher that they are for."""
    found = {}
    for module in pkgutil.iter_modules(matchers.__path__):
        if module.name.startswith(_PREFIX):
            samples = getattr(import_module(f"{matchers.__name__}.{module.name}"), "SAMPLES", None)
            if samples:
                found[module.name.removeprefix(_PREFIX).replace("_", "-")] = tuple(samples)
    return found
