"""Warnings about files with secrets and with rules, and commands that let one user read a file, and no other."""

import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from txmux.classes import frozen
from txmux.errors import sudo_for
from txmux.files import mode_lets, on_disk, read_own
from txmux.rules.installed import finders
from txmux.rules.model import NOWHERE, Rules
from txmux.rules.named_files import NamedFile, named_files
from txmux.rules.problems import Problem

_PEM = re.compile(rb"^-----BEGIN ", re.MULTILINE)


@frozen
class FileUser:
    """A user who reads files that belong to others.

    Attributes:
        group: The name of the group to which files are given for this user.
    """

    uid: int
    groups: frozenset[int]
    group: str

    def may(self, path: Path, mode: int) -> bool:
        return mode_lets(path.stat(), mode, self.uid, self.groups.__contains__)

    def to_open(self, path: Path) -> str:
        """Return the command that lets this user read a file, or all in a folder."""
        real = Path(os.path.realpath(path))
        places = [(folder, stat.S_IXOTH) for folder in reversed(real.parents)]
        closed = [
            place for place, mode in (*places, (real, stat.S_IROTH)) if not self.may(place, mode)
        ]
        return self._command(closed or [real], "g+rX")

    def to_close(self, path: Path) -> str:
        """Return the command that lets no other users read a file, and keeps it readable for this one."""
        status = path.stat()
        is_own = self.uid in {0, status.st_uid}
        if is_own or (status.st_gid in self.groups and status.st_mode & stat.S_IRGRP):
            return f"{sudo_for(path)}chmod o= {shlex.quote(str(path))}"
        return self._command([path], "g+r,o=")

    def _command(self, paths: Sequence[Path], mode: str) -> str:
        names, sudo = shlex.join(map(str, paths)), sudo_for(paths[-1])
        return f"{sudo}chgrp {self.group} {names} && {sudo}chmod {mode} {names}"


def own_user() -> FileUser:
    group = os.getegid()
    try:
        name = grp.getgrgid(group).gr_name
    except KeyError:  # as in a container without a list of groups
        name = str(group)
    return FileUser(os.geteuid(), frozenset((group, *os.getgroups())), name)


def secret_files(rules: Rules) -> list[NamedFile]:
    """Return the files and folders with secrets that rules name, each once."""
    secrets = [
        file
        for file in named_files(rules)
        if file.row.files.is_secret and file.section is not NOWHERE
    ]
    return [*{file.path: file for file in reversed(secrets)}.values()][::-1]


def open_secrets(
    rules: Rules,
    secrets: Iterable[NamedFile],
    user: FileUser | None = None,
    folders: Iterable[str] = (),
) -> Iterator[Problem]:
    """Find those of the `secret_files` of rules that others can read, or replace, and the files of the rules that they can change.

    Others are every user of this machine, and workers, where they may read `folders`, for what only the supervisor opens. The user,
    by default that of this process, continues to read them.
    """
    reported, user = set[Path](), user or own_user()
    real_folders = [Path(os.path.realpath(folder)) for folder in folders]
    for named in secrets:
        with suppress(OSError), on_disk(named.path):  # who needs the file reports it
            yield from _problems_of(named, user, reported, real_folders)
    yield from open_rules(rules)
    for find in finders("secrets"):
        yield from find(rules)


def _problems_of(
    named: NamedFile, user: FileUser, reported: set[Path], folders: Iterable[Path]
) -> Iterator[Problem]:
    readable, place = [*_readable_at(named.path)], _writable_at(named.path)
    for path in [path for path in readable if path not in reported]:
        reported.add(path)
        message = f"every user of this machine can read '{path}'; run: {user.to_close(path)}"
        yield named.section.problem(message, named.key)
    if place and place not in reported:
        reported.add(place)
        message = f"every user of this machine can write to '{place}', and so choose what is in '{named.path}'; run: {sudo_for(place)}chmod o-w {shlex.quote(str(place))}"
        yield named.section.problem(message, named.key)
    real = Path(os.path.realpath(named.path))  # `resolve` raises for a link to itself
    within = [folder for folder in folders if real.is_relative_to(folder)]
    for folder in within[:1] if named.row.files.opens == "supervisor" else ():
        message = f"workers can read what is in '{folder}', also in the sandbox, since Python or the system has files there; move '{named.path}' to another folder"
        yield named.section.problem(message, named.key)


def open_rules(rules: Rules) -> Iterator[Problem]:
    """Find the files of rules that every user can change, or a group that has other members than the owner and root."""
    seen: set[Path] = set()
    for file in map(Path, rules.files.on_disk):
        with suppress(OSError), on_disk(file):  # who needs it reports it
            for place, who, command in _writers(file, seen):
                what = (
                    f"'{place}'"
                    if place == file
                    else f"'{place}', and so choose what is in '{file}'"
                )
                message = f"{who} can write to {what}; run: {sudo_for(place)}chmod {command} {shlex.quote(str(place))}"
                yield Problem(str(file), 0, "", "", message)


def _writers(file: Path, seen: set[Path]) -> Iterator[tuple[Path, str, str]]:
    """Yield where others can put something else in the place of a file, with who they are and what takes that from them."""
    real = Path(os.path.realpath(file))
    places = dict.fromkeys((real, *file.absolute().parents, *real.parents))
    for place in [one for one in places if one not in seen]:
        seen.add(place)
        status = place.stat()
        mode = status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or mode & stat.S_ISVTX:
            continue  # a device, or a folder in which others replace nothing
        if mode & stat.S_IWOTH:
            yield place, "every user of this machine", "o-w"
        elif mode & stat.S_IWGRP and (group := _group_of_others(status)):
            yield place, f"group {group!r}", "g-w"


def _group_of_others(status: os.stat_result) -> str:
    """Return the name of the group of a file, if it has members beside the file's owner and root."""
    try:
        group, owner = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid).pw_name
    except KeyError:  # as in a container without lists of users
        return ""
    own = (user.pw_name for user in pwd.getpwall() if user.pw_gid == status.st_gid)
    return group.gr_name if status.st_gid and {*group.gr_mem, *own} - {owner, "root"} else ""


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
        mode = real.stat().st_mode if real.exists() else 0
        if stat.S_ISREG(mode) and mode & stat.S_IWOTH:  # and no device, which is so on purpose
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
