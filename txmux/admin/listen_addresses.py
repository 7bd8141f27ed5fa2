"""The listen addresses of the admin endpoints, and the token for TCP."""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from txmux import files
from txmux.errors import MuxError
from txmux.files import held_folder, make_by_helper, read_secret, socket_folders
from txmux.rules.model import Rules
from txmux.rules.problems import Problem
from txmux.rules.reading.conflicts import leads_to, real_path
from txmux.rules.reading.tokens import SHORTEST_TOKEN, is_secret
from txmux.serving.listen_addresses import ListenAddress, identity, is_in_use, listen_lines

_BACKLOG = 1024
"""More than are served at a time: further clients retry with backoff, starting at 1 s."""
_NAMED_MODE, _OWN_MODE = "660", "600"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TOKEN_BYTES = 32


def admin_addresses(
    rules: Rules, find: Callable[[list[ListenAddress]], ListenAddress | None]
) -> Iterator[tuple[str, ListenAddress]]:
    """Yield the listen addresses of ``admin`` and ``metrics``, if they are on; `find` chooses one for ``admin = auto``."""
    admin, metrics = rules.settings.admin, rules.settings.metrics
    named = [_named("admin", text) for text in admin if text != "auto"]
    if "auto" in admin:
        keys = {address.key for address in named}
        free = [address for address in automatic_addresses(rules.path) if address.key not in keys]
        if (address := find(free)) is not None:
            yield "admin", address
    yield from (("admin", address) for address in named)
    if metrics is not None:
        yield "metrics", _named("metrics", metrics)


def _named(setting: str, text: str) -> ListenAddress:
    if text.startswith("unix:") and ":mode=" not in text:
        text = f"{text}:mode={_NAMED_MODE}"
    return _listen_address(setting, text)


def _listen_address(setting: str, text: str) -> ListenAddress:
    key, kind, backlog = identity(text, _BACKLOG, setting)
    return ListenAddress("", text, backlog, key, kind, setting=setting)


def automatic_addresses(rules: Path) -> list[ListenAddress]:
    """In the order in which ``admin = auto`` tries them: the folders that systemd names, or others, of which most do not exist."""
    name = Path(str(rules).strip("<>")).with_suffix(".sock").name
    addresses = []
    given = [Path(name) for name in os.environ.get("RUNTIME_DIRECTORY", "").split(":") if name]
    for folder in given or socket_folders(os.environ):
        path = str(folder / name).replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
        addresses.append(_listen_address("admin", f"unix:{path}:mode={_OWN_MODE}"))
    return addresses


def at_automatic(rules: Rules) -> Iterator[Problem]:
    """Find listeners of units in the places where ``admin = auto`` may listen: commands would ask what is there."""
    if not rules.units or "auto" not in rules.settings.admin:
        return
    automatic = {real_path(address.key[5:]) for address in automatic_addresses(rules.path)}
    for listener in rules.listeners:
        for number, line in enumerate(listen_lines(listener)):
            is_unix = line.kind == "unix"
            if is_unix and leads_to(line.key[5:], automatic) and rules.unit_of(listener.section):
                message = f"{line.line!r} is for 'admin = auto' of [txmux]; write another path"
                yield listener.section.problem(message, "endpoint", number)


def why_not(address: ListenAddress) -> str:
    """Return why this process cannot have the socket there; nothing if it can."""
    path = Path(address.key.removeprefix("unix:"))
    folder = path.parent
    if not folder.is_dir():
        return f"{folder} does not exist"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} is not writable"
    return f"another service has {path}" if is_in_use(path) else ""


def make_own_folder() -> None:
    """Make the folder for sockets: root's, or the user's own, of which only the user may open what is in it (XDG Base Directory Specification)."""
    if os.environ.get("RUNTIME_DIRECTORY"):
        return
    if os.geteuid() == 0:
        with suppress(OSError):  # it exists, or this is no Linux
            files.RUN.mkdir(mode=0o755)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        with suppress(OSError):
            # As root, it may be that of the user who has become root by sudo.
            if Path(runtime).stat().st_uid == os.geteuid():
                Path(runtime, "txmux").mkdir(mode=0o700, exist_ok=True)


def read_token(path: Path) -> str:
    """Read the token; a missing file is created."""
    why = ""
    try:
        make_token(path)
    except OSError as problem:
        first = f"create {path.parent}, or " if isinstance(problem, FileNotFoundError) else ""
        if problem.errno in _NO_ROOM:
            first = "make room on its disk, or "
        why = f"created: {problem.strerror}; {first}name a file in a folder that the service may write to"
        if isinstance(problem, PermissionError):
            with suppress(OSError):
                make_by_helper(path)
    try:
        return stored_token(path)
    except OSError as problem:
        if not (why and isinstance(problem, FileNotFoundError)):
            why = f"read: {problem.strerror}"
        raise MuxError(f"[txmux] admin_token: {path} cannot be {why}") from problem
    except MuxError as problem:
        raise MuxError(f"[txmux] admin_token: {problem}") from problem


def stored_token(path: Path) -> str:
    """Read the token that a file has; a `MuxError` says what is wrong with it, an `OSError` why it cannot be read."""
    token = read_secret(path)
    if not is_secret(token):
        raise MuxError(
            f"{path} does not hold one line of at least {SHORTEST_TOKEN} ASCII characters without blanks; "
            "remove the file, and a new one is created"
        )
    return token


def make_token(path: Path) -> None:
    """Create the file with a random token, unless it exists."""
    try:
        with held_folder(path) as folder:
            how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = os.open(path.name, how, 0o600, dir_fd=folder)
            try:
                with open(file, "w", encoding="ascii") as made:  # noqa: PTH123 - a descriptor
                    made.write(f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n")
            except BaseException:
                os.unlink(path.name, dir_fd=folder)
                raise
    except FileExistsError:
        return
