"""The values of some keys, wherever rules have them: what follows from the row of a key needs no list of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any

from txmux.rules.model import Rules
from txmux.rules.reading import backend, route
from txmux.rules.reading.sections import TABLES
from txmux.rules.reading.values import SectionKey

_WITHIN = {"route": ("terminate_tls", route.TLS_FIELDS), "backend": ("tls", backend.TLS_FIELDS)}


class KeysInUse:
    """Finds the keys whose rows have something; there must be several for each kind of section."""

    def __init__(self, has: Callable[[SectionKey], object]) -> None:
        self._keys = {
            kind: [(name, key) for name, key in keys.items() if has(key)]
            for kind, keys in TABLES.items()
        }
        self._fields = {
            kind: attrgetter(*dict.fromkeys(_field(kind, name, key) for name, key in keys))
            for kind, keys in self._keys.items()
        }

    def __call__(self, rules: Rules) -> Iterator[tuple[Any, str, SectionKey, Any]]:
        """Yield the part of the rules, the key's name, its row, and its value, unless that is nothing."""
        parts: list[tuple[str, Iterable[Any]]] = [
            ("txmux", [rules.settings]),
            ("listen", rules.listeners),
            ("route", rules.routes),
            ("backend", rules.every_backend()),
        ]
        for kind, same in parts:
            fields_of = self._fields[kind]
            for part in same:
                if any(fields_of(part)):  # of thousands of routes, few have one
                    for name, key in self._keys[kind]:
                        value = _value_of(part, kind, name, key)
                        if value:
                            yield part, name, key, value


def _field(kind: str, name: str, key: SectionKey) -> str:
    within, fields = _WITHIN.get(kind, ("", {}))
    return within if name in fields else key.field or name


def _value_of(part: Any, kind: str, name: str, key: SectionKey) -> Any:
    _, fields = _WITHIN.get(kind, ("", {}))
    value = getattr(part, _field(kind, name, key))
    return getattr(value, fields[name]) if value and name in fields else value


_LOADING = KeysInUse(lambda key: key.loads)


def needed_modules(rules: Rules) -> Iterable[str]:
    """Return the modules that only some rules need. None may import a reactor: each worker installs its own."""
    found: dict[str, None] = {}
    for *_, key, value in _LOADING(rules):
        found.update(dict.fromkeys(key.loads(value) if key.loads else ()))
    return found
