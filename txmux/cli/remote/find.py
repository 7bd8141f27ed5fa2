"""Finds the service: by an argument, by the environment, by its rules file, or because it is the only one."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from txmux import files
from txmux.cli.remote.errors import NoServiceError, UsageError
from txmux.files import socket_folders

_OF_PROVIDERS = "wake.sock"  # beside those of services, by default
_NO_TOKEN = ""  # for sockets that were looked for: none needs it, and another user may listen there
_NAME_IT = "name the service by --admin ENDPOINT, --rules FILE or TXMUX_ADMIN"

_ARGUMENT = re.compile(r"((?:\\.|[^\\:=])*)(=?)((?:\\.|[^\\:])*)(?::|$)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_EXAMPLES = "write for example unix:/run/txmux/rules.sock or 127.0.0.1:9000"
_LOOPBACK = {"tcp": "127.0.0.1", "tcp6": "::1"}
_EVERY = {"": "", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here
"""Where a service that listens on all addresses can be reached from here."""


class AdminEndpoint(NamedTuple):
    """Where a service may answer.

    Attributes:
        named_by: Its source, for messages.
        rules: The rules file of the service, where the address does not identify it.
        is_a_guess: Whether it has to answer before it is used: the service may be at the next one instead.
        beside: Further sockets, which must be those of the same service.
    """

    address: Address
    token: str
    named_by: str
    rules: Path | None = None
    is_a_guess: bool = False
    beside: tuple[Path, ...] = ()


def find(
    admin: str | None, rules: Path | None, token_file: Path | None, environ: Mapping[str, str]
) -> Iterator[AdminEndpoint]:
    """Yield the endpoints to try, by what was given; `NoServiceError` if there are none, `UsageError` if there are several services."""
    if token_file:
        token = _token(token_file, "--token-file")
    else:
        token = _checked(environ.get("TXMUX_ADMIN_TOKEN", ""), "TXMUX_ADMIN_TOKEN")
    if admin is not None:
        yield AdminEndpoint(address_of(admin), token, "--admin")
    elif environ.get("TXMUX_ADMIN"):
        yield AdminEndpoint(address_of(environ["TXMUX_ADMIN"]), token, "TXMUX_ADMIN")
    elif rules is not None:
        yield from _of_rules(rules, token, environ)
    elif only := _sockets_of_services(environ):
        first, *others = only
        yield AdminEndpoint(first, _NO_TOKEN, "the only socket", beside=tuple(others))
    elif _is_file(files.RULES):
        yield from _of_rules(files.RULES, token, environ)
    else:
        searched = " nor ".join(_searched(environ, "*.sock"))
        raise NoServiceError(
            f"there is no socket of a service: neither {searched}, nor the rules file {files.RULES}; "
            f"start the service, or {_NAME_IT}; if it runs, look for 'txmux status' in its log"
        )


def _searched(environ: Mapping[str, str], name: str) -> Iterator[str]:
    for folder in socket_folders(environ):
        yield f"{folder}/{name}"
    if os.geteuid() == 0:
        yield f"{files.USERS}/*/txmux/{name}"
    elif not environ.get("XDG_RUNTIME_DIR"):
        yield f"$XDG_RUNTIME_DIR/txmux/{name} (it is not set)"


def _of_rules(rules: Path, token: str, environ: Mapping[str, str]) -> Iterator[AdminEndpoint]:
    keys = read_keys(rules)
    named_by = f"'admin' of {rules}"
    named = [text for text in keys.admin if text not in {"auto", "off"}]
    if "off" not in keys.admin:
        name = rules.with_suffix(".sock").name
        candidates = [folder / name for folder in socket_folders(environ)]
        sockets = [path for path in candidates if _may_be_there(path)][:1]
        if not named:  # or one of them could pass for the service
            sockets += [path for path in _sockets_of_users() if path.name == name]
        if not sockets and not named:
            searched = " or ".join(_searched(environ, name))
            raise NoServiceError(
                f"there is no socket {searched}; is the service of {rules} running? "
                f"It may have another endpoint: {_NAME_IT}"
            )
        for path in sockets:
            yield AdminEndpoint(path, _NO_TOKEN, named_by, rules, is_a_guess=True)
    elif not named:
        raise NoServiceError(
            f"{rules} has 'admin = off', so the service cannot be reached; "
            "remove that line, or send the service a signal"
        )
    for text in named:
        address = address_of(text, rules.parent)
        if isinstance(address, TcpAddress) and keys.token is not None and not token:
            token = _token(keys.token, f"'admin_token' of {rules}")
        yield AdminEndpoint(address, token, named_by, is_a_guess=len(named) > 1)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # another user may see it
        return False


def _may_be_there(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except PermissionError:
        return True  # connecting to it reports its owner
    except OSError:
        return False


def several_services(sockets: Iterable[str]) -> UsageError:
    return UsageError(f"there are several services: {', '.join(sockets)}; {_NAME_IT}")


def _sockets_of_services(environ: Mapping[str, str]) -> list[Path]:
    """Return the sockets at which services listen; one service may have several."""
    sockets: dict[Path, Path] = {}
    closed: list[Path] = []
    for folder in socket_folders(environ):
        sockets.update(_sockets(folder, closed))
    sockets = _of_services(sockets) or _of_services({path: path for path in _sockets_of_users()})
    if len(sockets) > 1:
        # Files of services that have ended may be among them.
        listening = {real: path for real, path in sockets.items() if not _is_stale(path)}
        if not listening:
            listed = ", ".join(sorted(map(str, sockets.values())))
            message = f"no service listens at any of {listed}; these files are left over from services that have ended; start one, or {_NAME_IT}"
            raise NoServiceError(message)
        sockets = listening
    if sockets:
        return sorted(sockets.values())
    if closed:
        raise NoServiceError(
            f"no permission to look into {closed[0]}, {owner_and_mode(closed[0])}; try as that user"
        )
    return []


def _of_services(sockets: Mapping[Path, Path]) -> dict[Path, Path]:
    return {real: path for real, path in sockets.items() if path.name != _OF_PROVIDERS}


def _sockets(folder: Path, closed: list[Path]) -> dict[Path, Path]:
    """Find the sockets in a folder; links are followed."""
    try:
        with os.scandir(folder) as entries:
            paths = [Path(entry.path) for entry in entries if entry.name.endswith(".sock")]
    except PermissionError:
        closed.append(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    else:
        return {path.resolve(): path for path in paths if _may_be_there(path)}
    return {}


def _sockets_of_users() -> Iterator[Path]:
    """Yield the sockets of the services of ordinary users, for root only, whose `$XDG_RUNTIME_DIR` does not lead to them."""
    if os.geteuid():
        return
    for path in sorted(files.USERS.glob("*/txmux/*.sock")):
        # A user could link to the socket of another one.
        if path.is_socket() and path.resolve() == path:
            yield path


def _is_stale(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the socket module's signature
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # it is in use, or its queue is full
            return False
    return False


def owner_and_mode(path: Path) -> str:
    from grp import getgrgid  # noqa: PLC0415 - only messages need it
    from pwd import getpwuid  # noqa: PLC0415

    try:
        status = path.stat()
    except OSError:  # the folder is closed, too
        return (
            f"in {path.parent}, {owner_and_mode(path.parent)}"
            if path != path.parent
            else "another user's"
        )
    try:
        owner = f"{getpwuid(status.st_uid).pw_name}:{getgrgid(status.st_gid).gr_name}"
    except KeyError:
        owner = f"{status.st_uid}:{status.st_gid}"
    return f"which belongs to {owner} with mode {stat.S_IMODE(status.st_mode):04o}"


def is_for_group(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return mode & stat.S_IWGRP != 0


def _token(path: Path, named_by: str) -> str:
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}, the file of {named_by}, cannot be read: {reason}") from None
    return _checked(token, f"{path}, the file of {named_by}")


def _checked(token: str, named_by: str) -> str:
    if not (token.isascii() and token.isprintable()):  # which HTTP could not carry
        raise UsageError(f"{named_by} does not hold one line of ASCII characters")
    return token


class TcpAddress(NamedTuple):
    """A TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Address = Path | TcpAddress
"""The file of a UNIX socket, or a TCP port."""


def address_of(text: str, folder: Path | None = None) -> Address:
    r"""Read an endpoint.

    Args:
        text: A path; ``HOST:PORT``; ``http://HOST:PORT``; or an endpoint string of Twisted's for a server or a client,
            ``unix:PATH``, ``tcp:PORT:interface=ADDRESS``, ``tcp:HOST:PORT``. In these ``\:`` is a colon.
        folder: Where relative paths start; by default the working directory.
    """
    base = folder or Path()
    if text.startswith("http://"):
        return _from_url(text)
    plain, named = _words(text)
    kind = plain.pop(0).lower() if plain else ""
    if kind == "unix":
        path = named.get("address") or named.get("path") or next(iter(plain), "")
        if path:
            return base / path
    elif kind in _LOOPBACK:
        tcp = _tcp(plain, named, _LOOPBACK[kind])
        if tcp is not None:
            return tcp
    elif "/" in text and "://" not in text:
        return base / text
    elif match := re.fullmatch(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:]*)):(?P<port>\d+)", text):
        return _tcp_at(match["ipv6"] or match["host"] or "127.0.0.1", match["port"], text)
    example = f"write 127.0.0.1:{text}" if text.isdecimal() else _EXAMPLES
    raise UsageError(f"{text!r} is not an endpoint of txmux; {example}")


def _words(text: str) -> tuple[list[str], dict[str, str]]:
    """Split an endpoint string into positional and named arguments."""
    parts = [
        (_ESCAPED.sub(r"\1", first), _ESCAPED.sub(r"\1", value), bool(equals))
        for first, equals, value in _ARGUMENT.findall(text)
    ]
    plain = [first for first, _, is_named in parts if first and not is_named]
    return plain, {first: value for first, value, is_named in parts if is_named}


def _from_url(text: str) -> TcpAddress:
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port or 80
    except ValueError:
        host, port = None, 0
    if not host:
        raise UsageError(f"{text!r} has no host; {_EXAMPLES}")
    return TcpAddress(host, port)


def _tcp(plain: list[str], named: dict[str, str], loopback: str) -> TcpAddress | None:
    """Read ``tcp:PORT``, with an interface, or ``tcp:HOST:PORT``."""
    numbers = [word for word in plain if word.isdecimal()]
    hosts = [word for word in plain if not word.isdecimal()]
    port = named.get("port") or next(iter(numbers), "")
    host = named.get("interface") or named.get("host") or next(iter(hosts), "")
    if not port:
        return None
    return _tcp_at(_EVERY.get(host, host) or loopback, port, ":".join(["tcp", *plain]))


def _tcp_at(host: str, port: str, text: str) -> TcpAddress:
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"{text!r} has no port from 1 to 65535; {_EXAMPLES}")
    return TcpAddress(_EVERY.get(host, host), int(port))


class Keys(NamedTuple):
    """The settings of ``[txmux]``."""

    admin: list[str]
    token: Path | None


def read_keys(path: Path) -> Keys:
    # Not needed, and not loaded, when the endpoint is named.
    from txmux.rules.reading.files import expand_section, read_source  # noqa: PLC0415
    from txmux.rules.reading.ini import read_ini  # noqa: PLC0415

    try:
        source = read_source(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}") from None
    sections, _ = read_ini(source.text, str(path))
    values: dict[str, list[str]] = {}
    for written in sections:
        if written.header == "txmux":
            section, _ = expand_section(written, os.environ.get)
            for key in ("admin", "admin_token"):
                values.setdefault(key, [item.text for item in section.items(key)])
    tokens = values.get("admin_token")
    return Keys(values.get("admin", []), path.parent / tokens[0] if tokens else None)
