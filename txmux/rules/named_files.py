"""The files that rules name: which process opens each, and whether it holds a secret, as the rows of their keys say."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import get_args

import attrs

from txmux.files import names_in, open_once
from txmux.rules.keys_in_use import keys_in_use
from txmux.rules.model import Rules, Section
from txmux.rules.reading.sections import TABLES
from txmux.rules.reading.values import Opens, SectionKey

_INCLUDE = TABLES["txmux"]["include"]
SUFFIXES = tuple(
    suffix for keys in TABLES.values() for key in keys.values() for suffix in key.suffixes
)
"""What the names of files with keys end with, in a folder that a key names."""


def is_key_file(name: str) -> bool:
    return name.endswith(SUFFIXES) and name[0] != "."


@attrs.frozen
class NamedFile:
    """A file, or a folder of files, that a key names; `row` says what it is."""

    section: Section
    key: str
    path: Path
    row: SectionKey


def named_files(rules: Rules) -> Iterator[NamedFile]:
    """Yield the files of all keys, and those with the text of the rules; some may be missing, and some come several times."""
    for key in keys_in_use(rules):
        for path in key.paths:
            yield NamedFile(key.part.section, key.name, path, key.row)
    included = {path for paths in rules.files.included.values() for path in paths}
    for text in rules.files.texts:
        label = "include" if text in included else ""  # else the main file, or a list of networks
        yield NamedFile(rules.settings.section, label, Path(text), _INCLUDE)


def paths_by_opener(rules: Rules) -> Mapping[Opens, set[str]]:
    """Return the absolute paths of the files by which process opens them."""
    paths: dict[Opens, set[str]] = {opens: set() for opens in get_args(Opens)}
    for file in named_files(rules):
        paths[file.row.opens].add(os.path.abspath(file.path))  # noqa: PTH100 - links stay
    return paths


def opened_for(file: NamedFile) -> Iterator[Path]:
    """Yield the path that a key names, and the files with keys in it if it is a folder."""
    yield file.path
    if file.row.opens == "worker-folder":
        with suppress(OSError):  # it is a file, or has been yielded for that
            yield from (file.path / name for name in names_in(file.path) if is_key_file(name))


def check_disks(rules: Rules, but: Collection[Path] = ()) -> None:
    """Open each file once where waiting does no harm, `but` some, before the reactor's thread reads it: its disk may not answer.

    Raises:
        TimeoutError: One does not, though others have waited for it.
    """
    late = None
    paths = {path for file in named_files(rules) for path in opened_for(file)}
    for path in paths.difference(but):
        try:
            open_once(path)
        except TimeoutError as problem:  # noqa: PERF203 - the others are opened
            late = late or problem
        except OSError:  # who needs the file reports it
            continue
    if late is not None:
        raise late
