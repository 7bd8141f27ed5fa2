"""`txmux init`: a first rules file, from what listens on this machine."""

import argparse
import os
import socket
import stat
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from txmux.backends.health.probes import UnhealthyError
from txmux.backends.health.probes import probe as checked
from txmux.cli.init.services import (
    PORTS,
    Listening,
    Probed,
    listening,
    recognise,
    speaks_one_protocol,
)
from txmux.cli.init.writing import OWN_PROGRAM, endpoint, rules_text
from txmux.errors import MuxError
from txmux.files import replace_file
from txmux.net.tls.client_hello import client_hello
from txmux.rules.model import Check
from txmux.rules.model.backend import CheckKind
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints
from txmux.rules.reading.endpointstrings import is_for_datagrams
from txmux.telemetry.formatting import plural
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Command, ProxyHeader

_PROC = Path("/proc")
_FIRST_UNPRIVILEGED = "sys/net/ipv4/ip_unprivileged_port_start"

_PATIENCE = 0.5  # seconds
_ENOUGH = 256  # bytes
_CHECKED: tuple[CheckKind, ...] = ("redis", "postgres")
"""Protocols, by their matchers, that a check asks in."""
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_AT_ONCE = 32


def configure(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write; by default standard output")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    parser.add_argument("--listen", metavar="ENDPOINT", help="where txmux is to listen; by default the first of some usual ports that is free")
    parser.add_argument("--probe", action="store_true", help="also connect to each port of this machine, and ask what it speaks: by TLS, by HTTP, and both behind a PROXY header")
    # fmt: on


def run(arguments: argparse.Namespace) -> int:
    if arguments.listen is not None:
        if not arguments.listen.isprintable():
            raise MuxError("--listen: has characters in it that cannot be printed")
        try:
            endpoints.listening(arguments.listen)
        except InvalidValueError as error:
            raise MuxError(f"--listen: {error}") from None
        if is_for_datagrams(arguments.listen):
            raise MuxError("--listen: only servers of TCP are found; write for example :443")
    try:
        servers = listening(_PROC)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}; this needs Linux with /proc mounted"
        raise MuxError(message) from None
    others = [server for server in servers if server.program != OWN_PROGRAM]
    probed = probe(others) if arguments.probe else {}
    services = [recognise(server, probed.get(server, Probed())) for server in others]
    where, why = endpoint(servers, first_unprivileged=_first_port())
    if arguments.listen is not None:
        where, why = arguments.listen, []
    text = rules_text(services, where, why, probed=arguments.probe, name=arguments.output)
    if arguments.output is None:
        print(text, end="")
        return 0
    _write(Path(arguments.output), text, force=arguments.force)
    known = sum(service.kind is not None and not service.is_guess for service in services)
    asks = "" if known == len(services) or arguments.probe else "; --probe asks the others"
    print(
        f"{arguments.output}: written; found {plural(len(services), 'server')}, recognised {known}{asks}. "
        f"Read it, and then: txmux check {arguments.output}",
        file=sys.stderr,
    )
    return 0


def _first_port() -> int:
    """Return the first port at which this user may listen (ip(7), Linux)."""
    if os.geteuid() == 0:
        return 1
    try:
        return int((_PROC / _FIRST_UNPRIVILEGED).read_text())
    except (OSError, ValueError):
        return 1024


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        is_there = os.path.lexists(path)
        if is_there and not force:
            message = f"{path} exists already; name another file, or overwrite it with --force"
            raise MuxError(message)
        if path.is_symlink():
            raise MuxError(f"{path} is a link: name the file that it leads to")
        mode = stat.S_IMODE(path.stat().st_mode) if is_there else None

        def prepare(number: int) -> None:
            if mode is not None:
                os.fchmod(number, mode)

        replace_file(path, text.encode(), prepare, 0o666)
    except OSError as error:
        raise MuxError(f"{path} cannot be written: {error.strerror}") from None


def probe(servers: Sequence[Listening]) -> dict[Listening, Probed]:
    """Connect to each, and ask those that do not speak first, unless their program is known."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(servers, threads.map(_probe, servers), strict=True))


def _probe(server: Listening) -> Probed:
    if greeting := _answer_to(server):
        return Probed(greeting)
    if speaks_one_protocol(server):
        return Probed()
    usual = getattr(PORTS.get(server.port), "matcher", "")
    if asked := next((kind for kind in _CHECKED if kind == usual), None):
        check = checked(Check(asked), "", 0, tls=False)
        with suppress(UnhealthyError):
            if check.is_healthy(_answer_to(server, check.request)):
                return Probed(is_usual=True)
    for header in (b"", encode_v2(ProxyHeader(Command.LOCAL))):
        for request in (client_hello("localhost"), _REQUEST):
            if answer := _answer_to(server, header + request):
                return Probed(answer=answer, has_header=bool(header))
    return Probed()


def _answer_to(server: Listening, request: bytes = b"") -> bytes:
    """Return the first bytes that a server sends; without any if it refuses connections, closes, or is silent."""
    deadline = time.monotonic() + _PATIENCE
    answer = b""
    with (
        suppress(OSError),
        socket.create_connection(server.reached_at, timeout=_PATIENCE) as client,
    ):
        client.sendall(request)
        while len(answer) < _ENOUGH and (left := deadline - time.monotonic()) > 0:
            client.settimeout(left)
            data = client.recv(_ENOUGH - len(answer))
            answer += data
            # A line, or any answer, is enough to know it by.
            if not data or b"\n" in data or request:
                break
    return answer
