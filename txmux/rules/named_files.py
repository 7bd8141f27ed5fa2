"""The files that rules name: which process opens each, and whether it holds a secret, as the rows of their keys say."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import attrs

from txmux.files import on_disk
from txmux.rules.model import Rules, Section
from txmux.rules.reading import backend, route
from txmux.rules.reading.sections import TABLES
from txmux.rules.reading.values import Opens, SectionKey

_NAMING = {
    kind: [(name, key) for name, key in keys.items() if key.opens and key.kind.paths]
    for kind, keys in TABLES.items()
}
_WITHIN = {"route": ("terminate_tls", route.TLS_FIELDS), "backend": ("tls", backend.TLS_FIELDS)}


def _names_of_values(kind: str) -> Iterator[str]:
    """Yield the attributes that are false in a part of the rules that names no file."""
    within, fields = _WITHIN.get(kind, ("", {}))
    for name, key in _NAMING[kind]:
        yield within if name in fields else key.field or name


_VALUES = {kind: attrgetter(*dict.fromkeys(_names_of_values(kind))) for kind in _NAMING}


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
    parts: list[tuple[str, Iterable[Any]]] = [
        ("txmux", [rules.settings]),
        ("listen", rules.listeners),
        ("route", rules.routes),
        ("backend", rules.every_backend()),
    ]
    for kind, same in parts:
        values_of = _VALUES[kind]
        for part in same:
            if any(values_of(part)):  # of thousands of routes, few name files
                yield from _files_of(kind, part)
    include = TABLES["txmux"]["include"]
    for text in rules.files.texts:
        yield NamedFile(
            rules.settings.section, "include", Path(text), include.opens, include.is_secret
        )


def _files_of(kind: str, part: Any) -> Iterator[NamedFile]:
    for name, key in _NAMING[kind]:
        value = _value_of(part, kind, name, key)
        for path in key.kind.paths(value) if key.kind.paths and value is not None else ():
            if path is not None:
                yield NamedFile(part.section, name, path, key.opens, key.is_secret)


def check_disks(rules: Rules) -> None:
    """Open each file once where waiting does no harm, before the reactor's thread reads it: its disk may not answer.

    Raises:
        TimeoutError: It does not, though others have waited for it.
    """
    for path in {file.path for file in named_files(rules)}:
        with _unless_late(), on_disk(path):
            if stat.S_ISREG(path.stat().st_mode):
                path.open("rb").close()


@contextmanager
def _unless_late() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise
    except OSError:  # who needs the file reports it
        return


def _value_of(part: Any, kind: str, name: str, key: SectionKey) -> Any:
    within, fields = _WITHIN.get(kind, ("", {}))
    if name not in fields:
        return getattr(part, key.field or name)
    outer = getattr(part, within)
    return None if outer is None else getattr(outer, fields[name])
