"""The files that rules name: which process opens each, and whether it holds a secret, as the rows of their keys say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from txmux.rules.model import Rules, Section
from txmux.rules.reading import backend, route
from txmux.rules.reading.sections import TABLES
from txmux.rules.reading.values import Opens, SectionKey

_NAMING = {
    kind: [(name, key) for name, key in keys.items() if key.opens and key.kind.paths]
    for kind, keys in TABLES.items()
}
_WITHIN = {"route": ("terminate_tls", route.TLS_FIELDS), "backend": ("tls", backend.TLS_FIELDS)}


@attrs.frozen
class NamedFile:
    """A file, or a folder of files, that a key names; `opens` and `is_secret` are those of `SectionKey`."""

    section: Section
    key: str
    path: Path
    opens: Opens
    is_secret: bool


def named_files(rules: Rules) -> Iterator[NamedFile]:
    """Yield the files of all keys, and those with the text of the rules; some may be missing, and some come several times."""
    parts: list[tuple[str, Any]] = [("txmux", rules.settings)]
    parts += [("listen", listener) for listener in rules.listeners]
    parts += [("route", route) for route in rules.routes]
    parts += [("backend", backend) for backend in rules.every_backend()]
    for kind, part in parts:
        for name, key in _NAMING[kind]:
            value = _value_of(part, kind, name, key)
            for path in key.kind.paths(value) if key.kind.paths and value is not None else ():
                if path is not None:
                    yield NamedFile(part.section, name, path, key.opens, key.is_secret)
    include = TABLES["txmux"]["include"]
    for text in rules.files.texts:
        yield NamedFile(
            rules.settings.section, "include", Path(text), include.opens, include.is_secret
        )


def _value_of(part: Any, kind: str, name: str, key: SectionKey) -> Any:
    within, fields = _WITHIN.get(kind, ("", {}))
    if name not in fields:
        return getattr(part, key.field or name)
    outer = getattr(part, within)
    return None if outer is None else getattr(outer, fields[name])
