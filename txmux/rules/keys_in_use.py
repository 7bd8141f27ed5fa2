"""The keys that name files or need modules, wherever rules have them: what follows from the row of a key needs no list of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import attrs

from txmux.rules.installed import STAGES
from txmux.rules.model import Rules
from txmux.rules.reading import backend, route
from txmux.rules.reading.sections import TABLES
from txmux.rules.reading.values import SectionKey

_WITHIN = {"route": ("terminate_tls", route.TLS_FIELDS), "backend": ("tls", backend.TLS_FIELDS)}


@attrs.frozen
class KeyInUse:
    """A key in a part of the rules, with the files that its value names and the modules that it needs, one of them at least."""

    part: Any
    name: str
    row: SectionKey
    paths: Sequence[Path]
    modules: Sequence[str]


def keys_in_use(rules: Rules) -> Sequence[KeyInUse]:
    """Return them all. The first call looks at each part of the rules: with very many, call it in a thread."""
    return rules.once(keys_in_use, _find)


def needed_modules(rules: Rules) -> Iterable[str]:
    """Return the modules that only some rules need. None may import a reactor: each worker installs its own."""
    always = [stage.maker.partition(":")[0] for stage in STAGES["match"]]
    return dict.fromkeys([*always, *(one for key in keys_in_use(rules) for one in key.modules)])


def _find(rules: Rules) -> Sequence[KeyInUse]:
    parts: list[tuple[str, Iterable[Any]]] = [
        ("txmux", [rules.settings]),
        ("listen", rules.listeners),
        ("route", rules.routes),
        ("backend", rules.every_backend()),
    ]
    return [found for kind, same in parts for found in _found(kind, same)]


def _found(kind: str, parts: Iterable[Any]) -> Iterator[KeyInUse]:
    keys = [
        (name, key, *_holder(kind, name, key))
        for name, key in TABLES[kind].items()
        if key.kind.paths or key.loads
    ]
    fields = [*dict.fromkeys(field for _, _, field, _ in keys)]
    fields_of = attrgetter(fields[0], *fields)  # several at least: of one it makes no tuple
    for part in parts:
        if any(fields_of(part)):  # of thousands of routes, few have one
            for name, key, _, value_of in keys:
                value = value_of(part)
                if not value:
                    continue
                paths = [one for one in key.kind.paths(value) if one] if key.kind.paths else ()
                modules = [*key.loads(value)] if key.loads else ()
                if paths or modules:
                    yield KeyInUse(part, name, key, paths, modules)


def _holder(kind: str, name: str, key: SectionKey) -> tuple[str, Callable[[Any], Any]]:
    """Return the attribute of a part in which the value of a key is, and what finds it there; the attribute may be None."""
    within, fields = _WITHIN.get(kind, ("", {}))
    if name in fields:
        inner = attrgetter(fields[name])
        return within, lambda part: (tls := getattr(part, within)) and inner(tls)
    field = "more" if key.feature else key.field or name
    return field, lambda part: key.value_in(part, name)
