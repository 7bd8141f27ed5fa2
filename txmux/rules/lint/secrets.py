"""Warnings about files with secrets."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from txmux.files import read_own
from txmux.rules.model import NOWHERE, Rules
from txmux.rules.named_files import NamedFile, named_files
from txmux.rules.problems import Problem

_PEM = re.compile(rb"^-----BEGIN ", re.MULTILINE)


def secret_files(rules: Rules) -> list[NamedFile]:
    """Return the files and folders with secrets that rules name, each once."""
    secrets = [
        file for file in named_files(rules) if file.is_secret and file.section is not NOWHERE
    ]
    return [*{file.path: file for file in reversed(secrets)}.values()][::-1]


def readable_secrets(rules: Rules, secrets: Iterable[NamedFile]) -> Iterator[Problem]:
    """Find those of the `secret_files` of rules that every user of this machine can read, or replace."""
    settings, reported = rules.settings, set[Path]()
    for named in secrets:
        for path in [path for path in _readable_at(named.path) if path not in reported]:
            reported.add(path)
            message = f"every user of this machine can read '{path}'; run 'chmod o= {path}'"
            yield named.section.problem(message, named.key)
        if (place := _writable_at(named.path)) and place not in reported:
            reported.add(place)
            message = f"every user of this machine can write to '{place}', and so choose what is in '{named.path}'; run 'chmod o-w {place}'"
            yield named.section.problem(message, named.key)
    store = settings.shared_limits
    if store is not None and store.password is None and rules.acme_names:
        message = "anyone who can read this Redis can read the keys of ACME certificates, and anyone who can write to it can get certificates for their names; set a password in Redis, and add password=FILE after the address"
        yield settings.section.problem(message, "shared_limits")


def _readable_at(path: Path) -> Iterator[Path]:
    """Yield the files at a path, which may be a folder, that every user may read; certificates without a key are no secret."""
    try:
        is_folder = path.is_dir()
        files = sorted(path.iterdir()) if is_folder else [path]
    except OSError:  # another user may see it
        return
    for file in files:
        with suppress(OSError):  # it is made at the start, or another user may see it
            mode = file.stat().st_mode
            if stat.S_ISREG(mode) and mode & stat.S_IROTH and _is_reached(file):
                data = read_own(file)
                if b"PRIVATE KEY-----" in data or not (is_folder or _PEM.search(data)):
                    yield file


def _is_reached(file: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in file.resolve().parents)


def _writable_at(path: Path) -> Path | None:
    """Return where every user could put another secret in place of one: its file, or a folder on the way to it or to where a link leads."""
    real = Path(os.path.realpath(path))
    folders = dict.fromkeys((*path.absolute().parents, *real.parents))
    try:
        if real.exists() and real.stat().st_mode & stat.S_IWOTH:
            return real
        for folder in folders:
            mode = folder.stat().st_mode
            # In a sticky one, others replace nothing; but what is missing, they can make.
            is_safe = mode & stat.S_ISVTX and (folder != path.absolute().parent or real.exists())
            if mode & stat.S_IWOTH and not is_safe:
                return folder
    except OSError:  # another user may see it
        pass
    return None
