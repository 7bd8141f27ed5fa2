"""The same connections through txmux, HAProxy, nginx and sslh: how many streams does each of them break?

    python -m campaign.bytes.beside --trials 5000 --seed 1

Each leads one port to one server. What its clients and servers do follows from the seed, so all of them meet the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from campaign.bytes.clients import Job
from campaign.bytes.crew import Crew
from campaign.bytes.plans import Mix
from tests.interop.children import Started
from tests.interop.servers import start_haproxy, start_nginx_stream, start_sslh
from tests.support.ports import free_port
from tests.support.services import Service

_PATIENCE = 20.0  # less than any of their own time limits
_TOGETHER = 16
_SSLH = """\
timeout: 60;
listen: ( {{ host: "127.0.0.1"; port: "{port}"; }} );
protocols: ( {{ name: "regex"; host: "127.0.0.1"; port: "{server}"; regex_patterns: [ "^K" ]; }} );
"""
_HAPROXY = """
listen bytes
    mode tcp
    bind 127.0.0.1:{port}
    timeout client 5m
    timeout server 5m
    server only 127.0.0.1:{server}
"""
_NGINX = "server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server}; {more} }}"
Start = Callable[[Path, int, int], Started]
"""Starts one in a folder, with its port and the server's."""


def _txmux(relay: str) -> Start:
    def start(folder: Path, port: int, server: int) -> Started:
        rules = f"[listen x]\nendpoint = 127.0.0.1:{port}\ndefault = 127.0.0.1:{server}\n"
        return Service(folder, rules, f"relay = {relay}\nadmin = off")

    return start


def _haproxy(folder: Path, port: int, server: int) -> Started:
    return start_haproxy(folder, _HAPROXY.format(port=port, server=server))


def _nginx(more: str) -> Start:
    return lambda folder, port, server: start_nginx_stream(
        folder, _NGINX.format(port=port, server=server, more=more)
    )


def _sslh(program: str) -> Start:
    return lambda folder, port, server: start_sslh(
        folder, _SSLH.format(port=port, server=server), program
    )


PEERS: Mapping[str, Start] = {
    "txmux, kernel": _txmux("kernel"),
    "txmux, portable": _txmux("portable"),
    "HAProxy": _haproxy,
    "nginx stream": _nginx(""),
    "nginx stream with proxy_half_close": _nginx("proxy_half_close on;"),
    "sslh (fork)": _sslh("sslh"),
    "sslh-select": _sslh("sslh-select"),
}


@attrs.frozen
class Outcome:
    connections: int
    broken: int  # of which at least one end saw something wrong
    looked_complete: int  # ends that saw a cut stream as complete


def compare(
    seed: int, trials: int, peers: Sequence[str] = tuple(PEERS), patience: float = _PATIENCE
) -> dict[str, Outcome]:
    """Lead the same connections through each of them, each of which may take so many seconds."""
    mix = Mix(["plain"], "K", most=2**21, patience=patience)
    outcomes: dict[str, Outcome] = {}
    crew = Crew(seed)
    try:
        server = crew.places.listening["K"].getsockname()[1]
        for name in peers:
            port = free_port()
            started = PEERS[name](crew.folder, port, server)
            try:
                until = time.monotonic() + 3600
                job = Job(mix, range(trials), {"plain": ("127.0.0.1", port)}, until, _TOGETHER)
                clients, servers = crew.run(job)
            finally:
                started.end()
            wrong = [seen for seen in (*clients, *servers) if seen.problem]
            complete = sum("looks complete" in seen.problem for seen in wrong)
            broken = len({seen.trial for seen in wrong})
            outcomes[name] = Outcome(len(clients), broken, complete)
    finally:
        crew.end()
    return outcomes


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m campaign.bytes.beside")
    options.add_argument("--trials", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    for name, found in compare(asked.seed, asked.trials).items():
        sys.stdout.write(f"{name}: {found}\n")


if __name__ == "__main__":
    main()
