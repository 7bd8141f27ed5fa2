"""The same connections through txmux, HAProxy, nginx and sslh: how many streams does each of them break?

    python -m campaign.bytes.beside --trials 5000 --seed 1

Each leads one port to one server. What its clients and servers do follows from the seed, so all of them meet the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from campaign.bytes.clients import Job
from campaign.bytes.crew import Crew
from campaign.bytes.plans import Mix
from campaign.bytes.talks import Seen
from tests.interop.children import Started
from tests.interop.mux import Mux
from tests.interop.servers import start_haproxy, start_nginx_stream, start_sslh
from tests.support.ports import free_port

KINDS = {
    "looks complete": "broken off, but looks complete",
    "an orderly end": "ends cleanly, but bytes are missing",
    "broken off": "broken off, though both ended cleanly",
    "it hangs": "goes on for ever",
    "": "other",
}
"""What can be wrong, by what is said of it."""

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
_TXMUX = """
[listen plain]
endpoint = 127.0.0.1:0
default = 127.0.0.1:{server}
"""


def _txmux(relay: str) -> Callable[[Path, int], tuple[Started, int]]:
    def start(folder: Path, server: int) -> tuple[Started, int]:
        mux = Mux(folder, _TXMUX.format(server=server), f"relay = {relay}\nadmin = off")
        mux.child.allow(3600)
        return mux, mux.port

    return start


def _haproxy(folder: Path, server: int) -> tuple[Started, int]:
    port = free_port()
    child = start_haproxy(folder, _HAPROXY.format(port=port, server=server))
    child.allow(3600)
    return child, port


def _nginx(more: str) -> Callable[[Path, int], tuple[Started, int]]:
    def start(folder: Path, server: int) -> tuple[Started, int]:
        port = free_port()
        lines = f"server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server}; {more} }}"
        child = start_nginx_stream(folder, lines)
        child.allow(3600)
        return child, port

    return start


def _sslh(program: str) -> Callable[[Path, int], tuple[Started, int]]:
    def start(folder: Path, server: int) -> tuple[Started, int]:
        port = free_port()
        return start_sslh(folder, _SSLH.format(port=port, server=server), program), port

    return start


PEERS: Mapping[str, Callable[[Path, int], tuple[Started, int]]] = {
    "txmux, kernel": _txmux("kernel"),
    "txmux, portable": _txmux("portable"),
    "HAProxy": _haproxy,
    "nginx stream": _nginx(""),
    "nginx stream with proxy_half_close": _nginx("proxy_half_close on;"),
    "sslh (fork)": _sslh("sslh"),
    "sslh-select": _sslh("sslh-select"),
}
"""How each is started; gives its port."""


@attrs.define
class Outcome:
    """What one of them did.

    Attributes:
        connections: How many there were.
        broken: Those of which at least one end saw something wrong.
        kinds: What the ends saw.
        examples: The first of each kind.
    """

    connections: int = 0
    broken: int = 0
    kinds: Counter[str] = attrs.field(factory=Counter)
    examples: dict[str, str] = attrs.field(factory=dict)

    def note(self, clients: list[Seen], servers: list[Seen]) -> None:
        self.connections += len(clients)
        wrong = {seen.trial for seen in (*clients, *servers) if seen.problem}
        self.broken += len(wrong)
        for seen in (*clients, *servers):
            if seen.problem:
                kind = next(kind for said, kind in KINDS.items() if said in seen.problem)
                self.kinds[kind] += 1
                self.examples.setdefault(kind, f"trial {seen.trial}: {seen.problem}")


def compare(
    seed: int, trials: int, peers: tuple[str, ...] = tuple(PEERS), patience: float = _PATIENCE
) -> dict[str, Outcome]:
    """Lead the same connections through each of them, each of which may take so many seconds."""
    mix = Mix(["plain"], "K", most=2**21, patience=patience)
    outcomes: dict[str, Outcome] = {}
    crew = Crew(seed)
    try:
        server = crew.places.listening["K"].getsockname()[1]
        for name in peers:
            started, port = PEERS[name](crew.folder, server)
            try:
                until = time.monotonic() + 3600
                job = Job(mix, range(trials), {"plain": ("127.0.0.1", port)}, until, _TOGETHER)
                outcomes[name] = Outcome()
                outcomes[name].note(*crew.run(job))
            finally:
                started.end()
    finally:
        crew.end()
    return outcomes


def main() -> None:
    options = argparse.ArgumentParser(prog="beside")
    options.add_argument("--trials", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--only", default=",".join(PEERS).replace(", ", " "), help="names")
    asked = options.parse_args()
    names = tuple(name for name in PEERS if name.replace(",", "") in asked.only.replace(", ", " "))
    for name, outcome in compare(asked.seed, asked.trials, names).items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in outcome.kinds.most_common())
        broken = f"{outcome.broken} of {outcome.connections:,} broken"
        sys.stdout.write(f"{name}: {broken}: {kinds}; {outcome.examples}\n")


if __name__ == "__main__":
    main()
