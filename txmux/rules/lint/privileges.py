"""The privileges that a rules file needs, and whether this process has them; opens nothing."""

import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from txmux.classes import frozen
from txmux.rules.installed import MANAGED
from txmux.rules.lint.warnings import warnings
from txmux.rules.model import NOWHERE, Backend, Handover, Outcome, Rules, Section, Server
from txmux.rules.problems import Problem
from txmux.rules.reading.endpoints import parse_endpoint
from txmux.rules.reading.service import control_endpoints, is_by_tcp

_NET_BIND_SERVICE = 1 << 10  # capabilities(7)
_FIRST_UNPRIVILEGED_PORT = 1024
_ROOT = 0
_CREATE = os.W_OK | os.X_OK
_LET = "let the user that txmux runs as"
_MPTCP = Path("/proc/sys/net/mptcp/enabled")
CANNOT_LISTEN = "cannot listen at"
NO_ADDRESS = "no interface of this machine has that address: see 'ip address'"
LATER = "; for one that it will have, add 'freebind = yes'"
_MADE_IN = frozenset(map(Path, ("/run", "/var/run", "/var/log", "/var/lib")))
"""Where `RuntimeDirectory=` and its like of a unit make folders before it starts."""


def _id_of(look_up: Callable[[str], Any], name: str) -> int | None:
    try:
        return int(name) if name.isdigit() else look_up(name)[2]
    except KeyError:
        return None


_user_id = partial(_id_of, pwd.getpwnam)
_group_id = partial(_id_of, grp.getgrnam)


def _has_mptcp() -> bool:
    try:
        return _MPTCP.read_text().strip() == "1"
    except OSError:
        return False


def may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


@frozen
class Privileges:
    """What a process of a user may do, and what its machine has."""

    user: int
    first_port: int = 0
    may: Callable[[Path, int], bool] = may
    user_id: Callable[[str], int | None] = _user_id
    group_id: Callable[[str], int | None] = _group_id
    has_interface: Callable[[str], bool] = lambda _: True
    has_address: Callable[[str], bool] = lambda _: True
    has_mptcp: Callable[[], bool] = _has_mptcp


def own_privileges(proc: Path = Path("/proc")) -> Privileges:
    try:
        status = (proc / "self/status").read_text()
    except OSError:
        status = ""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    # Where Linux does not publish it, every port counts as allowed.
    if effective is None or int(effective[1], 16) & _NET_BIND_SERVICE:
        return Privileges(os.geteuid())
    try:
        first_port = int((proc / "sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        first_port = _FIRST_UNPRIVILEGED_PORT
    return Privileges(os.geteuid(), first_port)


def no_interface(host: str, has_interface: Callable[[str], bool]) -> str:
    """Return why there can be no socket at an address with the interface that it names; nothing if there is one."""
    zone = host.partition("%")[2]
    if not zone or has_interface(zone):
        return ""
    return f"this machine has no interface {zone!r}; see 'ip link' for the names there are"


def missing_privileges(rules: Rules, privileges: Privileges) -> list[Problem]:
    """Find what the rules need and the process may not have: warnings in the order of files and lines."""
    problems = [
        *_addresses(rules, privileges),
        *unwritable(rules, privileges),
        *_accounts(rules, privileges),
        *_folders_of_servers(rules),
        *_single_paths(rules, privileges),
        *(problem for problem, is_made in _paths(rules) if is_made),
    ]
    return warnings(rules, problems)


def obstacles(rules: Rules) -> list[Problem]:
    return [problem for problem, is_made in _paths(rules) if not is_made]


def _addresses(rules: Rules, privileges: Privileges) -> Iterator[Problem]:
    """Find ports and addresses that the process may not listen on, or that this machine does not have."""
    for place in _listen_addresses(rules):
        text, parsed = place.text, parse_endpoint(place.text)
        host, port = parsed.host, parsed.port
        if why := no_interface(host, privileges.has_interface):
            yield place.unavailable(why)
        elif host and not place.freebind and not privileges.has_address(host):
            yield place.unavailable(NO_ADDRESS + LATER * (place.key == "endpoint"))
        if 0 < port < privileges.first_port:
            yield place.problem(
                f"{text!r}: user {privileges.user} may not listen on ports below {privileges.first_port}; run as "
                "root, with the capability CAP_NET_BIND_SERVICE or with a socket of systemd, or choose another port"
            )


def _single_paths(rules: Rules, privileges: Privileges) -> Iterator[Problem]:
    """Find ``mptcp`` without effect."""
    sections = [listener.section for listener in rules.listeners if listener.mptcp]
    sections += [backend.section for backend in rules.backends.values() if backend.mptcp]
    if not privileges.has_mptcp():
        for section in sections:
            message = "this system has no Multipath TCP, or it is off (sysctl net.mptcp.enabled), so connections are plain TCP"
            yield section.problem(message, "mptcp")
    for listener in rules.listeners:
        for number, endpoint in enumerate(listener.endpoints):
            if listener.mptcp and parse_endpoint(endpoint).kind not in {"tcp", "tcp6"}:
                message = f"{endpoint!r} has no Multipath TCP by 'mptcp'; write ADDRESS:PORT, or SocketProtocol=mptcp in the unit of systemd's socket"
                yield listener.section.problem(message, "endpoint", number)


def unwritable(rules: Rules, privileges: Privileges) -> Iterator[Problem]:
    """Find files that the service may not write to or create, though their folders are there."""
    settings, user, may = rules.settings, privileges.user, privileges.may
    for key, path in _files(rules):
        folder, is_there = path.parent, os.path.exists(path)  # noqa: PTH110 - as in _no_file
        if key == "access_log" and is_there and path.is_file() and not may(path, os.W_OK):
            message = f"user {user} may not write to '{path}'; {_LET} write to it"
            yield settings.section.problem(message, key)
        elif not is_there and not _is_missing(folder) and not may(folder, _CREATE):
            message = f"user {user} may not create files in '{folder}'; {_LET} write there"
            yield settings.section.problem(message, key)
    for place, path in _sockets(rules):
        folder = path.parent
        if not _is_missing(folder) and not may(folder, _CREATE):
            message = f"user {user} may not create sockets in '{folder}'; {_LET} write there"
            yield place.problem(message)
    yield from _managed_files(rules, privileges)


def _managed_files(rules: Rules, privileges: Privileges) -> Iterator[Problem]:
    if MANAGED is None or not rules.managed:
        return
    user, may = privileges.user, privileges.may
    section = rules.settings.section
    folder = MANAGED.folder(rules.settings)
    while _is_missing(folder):  # it is made, and those above it
        folder = folder.parent
    if not may(folder, _CREATE):
        message = f"user {user} may not create files in '{folder}'; {_LET} write there, or name another folder"
        yield section.problem(message, MANAGED.key)
    for file in rules.managed.values():
        if os.path.exists(file) and not may(file, os.R_OK):  # noqa: PTH110 - as above
            message = f"user {user} may not read '{file}'; {_LET} read and write it"
            yield section.problem(message, MANAGED.key)


def _accounts(rules: Rules, privileges: Privileges) -> Iterator[Problem]:
    """Find users and groups that there are not, and a process that stays root."""
    user, group, section = rules.settings.user, rules.settings.group, rules.settings.section
    for admin in rules.settings.admin_users:
        look_up = privileges.group_id if admin.is_group else privileges.user_id
        if look_up(admin.name) is None:
            kind = "group" if admin.is_group else "user"
            message = f"there is no {kind} {admin.name!r} on this machine; create it and reload, or name another one"
            yield section.problem(message, "admin_users")
    if user is None:
        if privileges.user == _ROOT:
            message = "if you start it as root, it stays root; write 'user = NAME' for the user to switch to once it listens"
            path = next(iter(rules.files.texts))
            yield Problem(path, section.line, "txmux", "user", message)
        return
    target = privileges.user_id(user)
    if target is None:
        message = f"there is no user {user!r} on this machine; create it, or name another one"
        yield section.problem(message, "user")
    elif privileges.user not in {_ROOT, target}:
        message = f"user {privileges.user} may not become {user!r}; run as root, or remove this"
        yield section.problem(message, "user")
    if group is not None and privileges.group_id(group) is None:
        message = f"there is no group {group!r} on this machine; create it, or name another one"
        yield section.problem(message, "group")


def _folders_of_servers(rules: Rules) -> Iterator[Problem]:
    """Find servers' UNIX sockets in folders that are not there; the server may make its folder."""
    for section, key, number, server in named_servers(rules):
        if server.path and _is_missing(folder := Path(server.path).parent):
            yield section.problem(_no_folder(folder)[0], key, number)


def named_servers(rules: Rules) -> Iterator[tuple[Section, str, int | None, Server | Handover]]:
    """Yield the servers with the lines that name them."""
    for backend in rules.backends.values():
        for number, server in enumerate(backend.servers):
            yield backend.section, "server", number, server
    named: list[tuple[Section, str, int | None, Outcome | None]] = []
    named += [(route.section, "backend", None, route.outcome) for route in rules.routes]
    for listener in rules.listeners:
        silent = enumerate(line.outcome for line in listener.silent)
        named.append((listener.section, "default", None, listener.default))
        named += [(listener.section, "silent", number, outcome) for number, outcome in silent]
    for section, key, line, outcome in named:
        if isinstance(outcome, Handover):
            yield section, key, line, outcome
        elif isinstance(outcome, Backend) and outcome.section is NOWHERE:
            yield section, key, line, outcome.servers[0]


def is_socket(path: str) -> bool:
    """Return whether this process sees a socket there."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116 - as it is written
    except OSError:
        return False


def _paths(rules: Rules) -> Iterator[tuple[Problem, bool]]:
    """Find paths that cannot be made, each with whether the unit of systemd makes its folder before the service starts."""
    for place, path in _sockets(rules):
        if reason := no_socket(path):
            yield place.unavailable(reason[0]), reason[1]
    for key, path in _files(rules):
        if reason := _no_file(path):
            yield rules.settings.section.problem(reason[0], key), reason[1]


def _files(rules: Rules) -> Iterator[tuple[str, Path]]:
    """Yield the files that the service creates, with their keys."""
    settings = rules.settings
    if settings.admin_token is not None and any(map(is_by_tcp, settings.admin)):
        yield "admin_token", settings.admin_token
    if isinstance(settings.access_log, Path):
        yield "access_log", settings.access_log


@frozen
class _ListenLine:
    """Where rules name an address to listen on.

    Attributes:
        number: Which of the key's lines names it.
        freebind: Whether the machine may have the address later.
    """

    section: Section
    key: str
    number: int
    text: str
    freebind: bool = False

    def problem(self, message: str) -> Problem:
        return self.section.problem(message, self.key, self.number)

    def unavailable(self, why: str) -> Problem:
        return self.problem(f"{CANNOT_LISTEN} {self.text}: {why}")


def _listen_addresses(rules: Rules) -> Iterator[_ListenLine]:
    for listener in rules.listeners:
        for number, text in enumerate(listener.endpoints):
            yield _ListenLine(listener.section, "endpoint", number, text, listener.freebind)
    for key, number, text in control_endpoints(rules.settings):
        yield _ListenLine(rules.settings.section, key, number, text)


def _sockets(rules: Rules) -> Iterator[tuple[_ListenLine, Path]]:
    """Yield the UNIX sockets that the service creates. A relative path starts where the service does, so it is left out."""
    for place in _listen_addresses(rules):
        parsed = parse_endpoint(place.text)
        if parsed.kind == "unix" and (path := Path(parsed.named["address"])).is_absolute():
            yield place, path


def no_socket(path: Path) -> tuple[str, bool] | None:
    """Return why a UNIX socket cannot be made, and whether systemd makes its folder."""
    if _is_missing(path.parent):
        return _no_folder(path.parent)
    try:
        if not path.exists() or path.is_socket():
            return None
    except OSError:
        return None  # another user may see it
    return (f"'{path}' exists, and is not a socket; move it away, or write another path", False)


def _no_file(path: Path) -> tuple[str, bool] | None:
    if os.path.isdir(path):  # noqa: PTH112 - where this user may not look, it raises nothing
        return f"'{path}' is a folder; write the path of a file", False
    return _no_folder(path.parent) if _is_missing(path.parent) else None


def _is_missing(folder: Path) -> bool:
    try:
        # `is_dir` hides the reason since Python 3.14.
        return not stat.S_ISDIR(folder.stat().st_mode)
    except PermissionError:
        return False  # another user may see it
    except (OSError, ValueError):
        return True


def _no_folder(folder: Path) -> tuple[str, bool]:
    """Return what is wrong where a folder is missing, and whether a unit of systemd may make it."""
    is_made = folder.parent in _MADE_IN
    by_unit = "unless a unit of systemd does so when it starts the service"
    advice = by_unit if is_made else "or correct the path"
    return f"there is no folder '{folder}'; create it, {advice}", is_made
