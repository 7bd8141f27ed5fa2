"""How a service is started: by which user, and what its unit of systemd gives that one and hides from it (systemd.exec(5))."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from pathlib import Path

import attrs

from txmux.classes import frozen
from txmux.files import RULES
from txmux.processes.privilege.account import Account, AccountError, find_account, group_id

UNIT_FOLDERS = tuple(
    Path(folder, "systemd/system")
    for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
"""Where units are; one hides those of its name in later folders (systemd.unit(5))."""

_YES = {"1", "yes", "true", "on"}
_DYNAMIC_IDS = range(61184, 65520)  # from which systemd takes the users of `DynamicUser=`
_OWN = {"StateDirectory": "lib", "LogsDirectory": "log", "CacheDirectory": "cache"}
_HIDING = {"ProtectHome": ("/home", "/root", "/run/user"), "PrivateTmp": ("/tmp", "/var/tmp")}  # nosec B108  # noqa: S108 - nothing is written there
_SHOWING = {"BindPaths", "BindReadOnlyPaths", "RootDirectory", "RootImage"}


@frozen
class Launch:
    """What is known of the start of a service.

    Attributes:
        account: The user that starts it; ``None`` if that is not known, or root.
        unit: The unit of systemd that does; ``None`` if that is not known.
        is_dynamic: Whether systemd makes the user, another one at each start.
        may_listen: Whether the user may listen on all ports; also if that is not known.
        own: Folders that the unit gives the user.
        descriptors: How many each process may have; ``None`` if that is not known.
        hidden: Folders in which the service sees nothing, each with the setting that hides them.
    """

    account: Account | None = None
    unit: Path | None = None
    is_dynamic: bool = False
    may_listen: bool = True
    own: tuple[Path, ...] = ()
    hidden: Mapping[Path, str] = {}
    descriptors: int | None = None

    @property
    def may_act(self) -> bool:
        return self.account is None or os.geteuid() in {0, self.account.uid}

    def acting(self) -> AbstractContextManager[None]:
        """Have this process open files as the user, if it is known and this process may do so."""
        if self.account is None or not self.may_act:
            return nullcontext()
        return self.account.acting()


def launch_of(rules: Path, user: str | None = None) -> Launch:
    """Return how the service of a rules file is started: by a user that is named, or as the unit that names the file says.

    Raises:
        AccountError: There is no such user, or this process may not act as a named one.
    """
    if user is not None:
        launch = Launch(find_account(user, None, "--as: "))
        if not launch.may_act:
            raise AccountError(f"--as: only root can open files as user {user!r}; run this as root")
        return launch
    for path in _found("*.service"):
        with suppress(OSError, ValueError):  # one that is masked, closed to this user, or no text
            if "txmux" in path.read_text():
                unit = _settings(path)
                if any(_runs(command, rules) for command in unit.get("ExecStart", ())):
                    return _launch_by(path, unit)
    return Launch()


def _found(pattern: str) -> list[Path]:
    found: dict[str, Path] = {}
    for path in chain.from_iterable(folder.glob(pattern) for folder in UNIT_FOLDERS):
        found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def _settings(unit: Path) -> dict[str, list[str]]:
    """Read section [Service] of a unit and its drop-ins: the values of each setting that were given since the last empty one."""
    settings: dict[str, list[str]] = {}
    for path in (unit, *_found(f"{unit.name}.d/*.conf")):
        section = ""
        for line in map(str.strip, path.read_text().replace("\\\n", " ").splitlines()):
            key, equals, value = (part.strip() for part in line.partition("="))
            if line.startswith("["):
                section = line
            elif section == "[Service]" and equals:
                settings[key] = [*settings.get(key, ()), value] if value else []
    return settings


def _runs(command: str, rules: Path) -> bool:
    words = shlex.split(command)
    names = {Path(word).name for word in words}
    if "txmux" not in names or names.isdisjoint({"run", "twist"}):
        return False
    named = [word.removeprefix("--rules=") for word in words]
    if words[-1] == "run":
        named.append(str(RULES))
    return os.path.realpath(rules) in map(os.path.realpath, named)


def _launch_by(path: Path, unit: Mapping[str, list[str]]) -> Launch:
    def words(key: str) -> list[str]:
        return " ".join(unit.get(key, ())).split()

    def last(key: str, default: str = "") -> str:
        return (unit.get(key) or [default])[-1]

    account, is_made, where = None, last("DynamicUser").lower() in _YES, f"{path}: "
    if is_made or last("User", "root") not in {"root", "0"}:
        user = last("User", path.stem)
        try:
            account = find_account(user, last("Group") or None, where)
            is_made = is_made and account.uid in _DYNAMIC_IDS
        except AccountError:
            if not is_made:
                raise
            account = Account(user, _DYNAMIC_IDS[-1], _DYNAMIC_IDS[-1])
        more = tuple(group_id(group, where) for group in words("SupplementaryGroups"))
        account = attrs.evolve(account, more=more)
    limit = last("LimitNOFILE").partition(":")[0]
    own = [Path("/run", word) for word in words("RuntimeDirectory")]
    own += [Path("/var", folder, word) for key, folder in _OWN.items() for word in words(key)]
    return Launch(
        account,
        path,
        is_made,
        account is None or "CAP_NET_BIND_SERVICE" in words("AmbientCapabilities"),
        tuple(own),
        {} if _SHOWING & unit.keys() else dict(_hidden(unit)),
        sys.maxsize if limit == "infinity" else int(limit) if limit.isdecimal() else None,
    )


def _hidden(unit: Mapping[str, list[str]]) -> Iterator[tuple[Path, str]]:
    for key, folders in _HIDING.items():
        # DynamicUser= implies PrivateTmp=.
        implied = unit.get("DynamicUser", []) if key == "PrivateTmp" else []
        if {*(unit.get(key) or implied)[-1:]} & {*_YES, "tmpfs", "disconnected"}:
            yield from ((Path(folder), key) for folder in folders)
