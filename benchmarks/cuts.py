"""Runs `txmux test` against txmux and its peers, and prints a table of who answers which hello, however it is cut.

    python -m benchmarks.cuts

Each peer sends clients that ask for www.example.com to one server, and all others to another one, by a configuration in
``benchmarks/peers``. Needs nginx, for the servers, and OpenSSL 3.5 in the package cryptography; a peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from benchmarks.children import (
    BenchmarkError,
    Child,
    eventually,
    free_ports,
    is_listening,
    last_line,
)
from benchmarks.machine import described
from benchmarks.proxies import PROXIES
from benchmarks.templates import fill
from benchmarks.tls_clients import make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.proxies import Proxy

_NAME = "www.example.com"
_WAIT = "tcp-request inspect-delay 5s\n    tcp-request content accept if { req.ssl_hello_type 1 }"
_SENT = {
    "cut at": "a hello cut in two",
    "one byte": "byte by byte",
    "X25519": "X25519MLKEM768, 1.8 KiB, 2 segments",
    "… and 8 KiB": "8 KiB, 58 segments",
}


@attrs.frozen
class _Peer:
    title: str
    key: str
    template: str
    rules: str = ""


PEERS = (
    _Peer("txmux", "txmux", "cuts-txmux.ini"),
    _Peer("HAProxy that waits by `tcp-request content`", "haproxy-auto", "cuts-haproxy.cfg", _WAIT),
    _Peer("HAProxy without such a rule", "haproxy-auto", "cuts-haproxy.cfg"),
    _Peer("nginx `ssl_preread`", "nginx", "cuts-nginx.conf"),
    _Peer("Envoy `tls_inspector`", "envoy", "cuts-envoy.yaml"),
    _Peer("sslh", "sslh-fork", "cuts-sslh.cfg"),
)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="cuts", description=__doc__.partition("\n")[0])
    parser.parse_args()
    programs = {proxy.key: proxy for proxy in PROXIES}
    programs["sslh-fork"] = attrs.evolve(programs["sslh"], program="sslh")
    titles = _SENT.values()
    print(f"| | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}")
    with tempfile.TemporaryDirectory(prefix="txmux-cuts-") as made:
        folder = Path(made)
        make_certificate(folder / "named.pem", _NAME)
        make_certificate(folder / "other.pem", "other.example.com")
        with free_ports(2) as (named, other):
            ports = {"NAMED": named, "OTHER": other}
            with started(programs["nginx"], "cuts-servers.conf", folder, ports, named):
                for peer in PEERS:
                    cells = tested(peer, programs[peer.key], folder, ports)
                    print(f"| {peer.title} | {' | '.join(cells)} |", flush=True)
    known = described([proxy for proxy in programs.values() if proxy.path() is not None])
    print(f"\n{known['peers']}; {known['system']}")


@contextlib.contextmanager
def started(
    proxy: Proxy, template: str, folder: Path, values: Mapping[str, object], port: int
) -> Iterator[None]:
    """Run a program until the block ends, once it listens."""
    program = proxy.path()
    if program is None:
        raise BenchmarkError("not installed")
    config = fill(template, folder, values)
    arguments = [word.format(config, workers=1) for word in proxy.arguments]
    log = folder / f"{template}.log"
    with Child([program, *arguments], log, sorted(os.sched_getaffinity(0))) as child:
        eventually(lambda: child.has_ended() or is_listening(port), "it listens")
        if child.has_ended():
            raise BenchmarkError(f"it does not start: {child.last_words()}")
        yield


def tested(peer: _Peer, proxy: Proxy, folder: Path, ports: Mapping[str, int]) -> list[str]:
    """Give a row of the table."""
    command = [sys.executable, "-m", "txmux", "test", "--sni", _NAME, "--json"]
    try:
        with free_ports(1) as (port,):
            values = {**ports, "PORT": port, "RULES": peer.rules}
            with started(proxy, peer.template, folder, values, port):
                done = subprocess.run(
                    [*command, f"127.0.0.1:{port}"],
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                )
    except BenchmarkError as error:
        return [str(error)]
    if not done.stdout:
        return [last_line(done.stderr)]
    rows: list[dict[str, Any]] = json.loads(done.stdout)["tests"][_NAME]
    cells = []
    for begin in _SENT:
        row = next(row for row in rows if row["sent"].startswith(begin))
        answer = row["result"] if row["connections"] > 1 else "no" if row["differing"] else "yes"
        cells.append(f"**{answer}**" if row["differing"] else answer)
    return cells


if __name__ == "__main__":
    main()
