"""`txmux init`: a first rules file, from what listens on this machine."""

import argparse
import os
import socket
import stat
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from txmux.cli.init.services import Listening, listening, recognise
from txmux.cli.init.writing import OWN_PROGRAM, endpoint, rules_text
from txmux.errors import MuxError
from txmux.files import replace_file
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints
from txmux.rules.reading.endpointstrings import is_for_datagrams
from txmux.telemetry.formatting import plural

_PROC = Path("/proc")
_FIRST_UNPRIVILEGED = "sys/net/ipv4/ip_unprivileged_port_start"

_PATIENCE = 0.5  # seconds
_ENOUGH = 256  # bytes
_AT_ONCE = 32


def configure(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write; by default standard output")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    parser.add_argument("--listen", metavar="ENDPOINT", help="where txmux is to listen; by default the first of some usual ports that is free")
    parser.add_argument("--probe", action="store_true", help="also connect to each port of this machine, and read what the server says by itself")
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
        raise MuxError(
            f"{error.filename}: {error.strerror}; this needs Linux with /proc mounted"
        ) from None
    others = [server for server in servers if server.program != OWN_PROGRAM]
    probed = greetings(others) if arguments.probe else {}
    services = [recognise(server, probed.get(server, b"")) for server in others]
    where, why = endpoint(servers, first_unprivileged=_first_port())
    if arguments.listen is not None:
        where, why = arguments.listen, []
    text = rules_text(services, where, why, probed=arguments.probe, name=arguments.output)
    if arguments.output is None:
        print(text, end="")
        return 0
    _write(Path(arguments.output), text, force=arguments.force)
    routes = sum(service.kind is not None for service in services)
    probe = "" if routes or arguments.probe or not services else "; --probe asks them what they are"
    print(
        f"{arguments.output}: written; found {plural(len(services), 'server')}, recognised {routes}{probe}. "
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
            raise MuxError(
                f"{path} exists already; name another file, or overwrite it with --force"
            )
        if path.is_symlink():
            raise MuxError(f"{path} is a link: name the file that it leads to")
        mode = stat.S_IMODE(path.stat().st_mode) if is_there else None

        def prepare(number: int) -> None:
            if mode is not None:
                os.fchmod(number, mode)

        replace_file(path, text.encode(), prepare, 0o666)
    except OSError as error:
        raise MuxError(f"{path} cannot be written: {error.strerror}") from None


def greetings(servers: Sequence[Listening]) -> dict[Listening, bytes]:
    """Connect to each, send nothing, and return the first bytes of each."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(servers, threads.map(_greeting, servers), strict=True))


def _greeting(server: Listening) -> bytes:
    deadline = time.monotonic() + _PATIENCE
    greeting = b""
    try:
        with socket.create_connection(server.reached_at, timeout=_PATIENCE) as client:
            while len(greeting) < _ENOUGH and (left := deadline - time.monotonic()) > 0:
                client.settimeout(left)
                data = client.recv(_ENOUGH - len(greeting))
                if not data:
                    break
                greeting += data
                if b"\n" in greeting:  # a line is enough to know it by
                    break
    except OSError:  # it refuses connections, or sends nothing
        pass
    return greeting
