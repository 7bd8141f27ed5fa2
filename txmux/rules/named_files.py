"""The files that rules name: which process opens each, and whether it holds a secret, as the rows of their keys say."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import attrs

from txmux.files import on_disk
from txmux.rules.keys_in_use import KeysInUse
from txmux.rules.model import Rules, Section
from txmux.rules.reading.service import KEYS
from txmux.rules.reading.values import Opens, SectionKey

_INCLUDE = KEYS["include"]
_NAMING = KeysInUse(lambda key: key.kind.paths)


@attrs.frozen
class NamedFile:
    """A file, or a folder of files, that a key names; `row` says what it is."""

    section: Section
    key: str
    path: Path
    row: SectionKey


def named_files(rules: Rules) -> Iterator[NamedFile]:
    """Yield the files of all keys, and those with the text of the rules; some may be missing, and some come several times."""
    for part, name, key, value in _NAMING(rules):
        for path in key.kind.paths(value) if key.kind.paths else ():
            if path is not None:
                yield NamedFile(part.section, name, path, key)
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
