"""The same programs, pulled cables and late hellos through txmux, HAProxy, nginx and sslh, and transfers without any of them.

    python -m campaign.networks.beside --seed 1 --networks good loss

One proxy after another does the same over the same bad network, in another order each round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath

import attrs

from campaign.networks import programs
from campaign.networks.beside_cables import PATIENCE, hello_late, pulled
from campaign.networks.conditions import CONDITIONS
from campaign.networks.path import SERVER, Path
from campaign.networks.peers import ALL, PEERS, Job, started
from campaign.networks.site import PORT, FileServers
from tests.programs import require_program
from tests.support.undone import Undone

STRAIGHT = "no proxy"
"""The machine between both cables leads packets on, to one server for each program."""
NETWORKS = ("good", "loss", "narrow", "slow", "crooked", "all")
_SSH = "ssh, 20 lines"
_PROGRAMS: dict[str, Callable[[FileServers], int]] = {
    "scp up": programs.scp_up,
    "scp down": programs.scp_down,
    "curl up": programs.https_up,
    "curl down": programs.https_down,
    _SSH: programs.ssh_lines,
}
_ROWS = {"scp": ("scp up", "scp down"), "curl": ("curl up", "curl down"), _SSH: (_SSH,)}
"""What the table shows in one row."""


@attrs.define
class Outcome:
    """What came of it on one network.

    Attributes:
        seconds: How long each run took, by proxy and program.
        failures: A line for each that failed.
        moved: Bytes that arrived as they were sent.
    """

    seconds: dict[tuple[str, str], list[float]] = attrs.field(factory=dict)
    failures: list[str] = attrs.field(factory=list)
    moved: int = 0

    def median(self, peer: str, program: str) -> str:
        """Give the median as the table has it."""
        times = self.seconds.get((peer, program))
        return f"{statistics.median(times):.2f}" if times else "failed"


def transfer(
    network: str,
    seed: int,
    *,
    rounds: int,
    size: int = 2**20,
    peers: Sequence[str] = (STRAIGHT, *PEERS),
) -> Outcome:
    """Run each program over a network, through each proxy, in each round.

    Args:
        network: Its name, as in `CONDITIONS`.
        seed: From what follows which packets are late, the order of the proxies, and what the files have in them.
        rounds: How often.
        size: Bytes of a file.
        peers: Names of proxies.
    """
    chance = random.Random(f"{seed} {network}")
    outcome = Outcome()
    with Undone() as undone:
        path = Path(undone, CONDITIONS[network], seed)
        for namespace in (path.clients, path.mux, path.servers):
            # What the system has learnt about a network by one proxy must not help another.
            namespace.set("ipv4/tcp_no_metrics_save", "1")
        servers = FileServers(undone, path, seed=seed, size=size)
        for _ in range(rounds):
            for peer in chance.sample(peers, len(peers)):
                _run_all(peer, path, servers, network, outcome)
    return outcome


def _run_all(peer: str, path: Path, servers: FileServers, network: str, outcome: Outcome) -> None:
    with contextlib.ExitStack() as ends:
        lead = ends.enter_context(_straight(path, network)) if peer == STRAIGHT else None
        if lead is None:
            folder = FilePath(tempfile.mkdtemp(dir=servers.folder))
            job = Job(folder, PORT, named=servers.secure, rest=servers.ssh.port)
            ends.enter_context(started([peer], path, [job]))
        for name, program in _PROGRAMS.items():
            if lead is not None:
                lead(servers.secure if name.startswith("curl") else servers.ssh.port)
            began = time.monotonic()
            try:
                outcome.moved += program(servers)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others have their turn
                outcome.failures.append(f"{network}, {peer}, {name}: {error}")
                continue
            times = outcome.seconds.setdefault((peer, name), [])
            times.append(time.monotonic() - began)


@contextlib.contextmanager
def _straight(path: Path, network: str) -> Iterator[Callable[[int], None]]:
    """Have the machine between the cables lead packets on; what is given says to which port."""
    nft = require_program("nft")
    near, far = path.near.ends[1], path.far.ends[0]
    lost = CONDITIONS[network].lost
    path.mux.set("ipv4/ip_forward", "1")
    path.mux.set("netfilter/nf_conntrack_tcp_be_liberal", "1")
    path.mux.run_lines(
        [
            f"{nft} add table ip straight",
            f"{nft} add chain ip straight to '{{ type nat hook prerouting priority dstnat; }}'",
            f"{nft} add chain ip straight from '{{ type nat hook postrouting priority srcnat; }}'",
            f"{nft} add rule ip straight from oifname {far} masquerade",
            # What is led on does not arrive, so it has to be lost here.
            f"{nft} add chain ip straight on '{{ type filter hook forward priority filter; }}'",
            f"{nft} add rule ip straight on numgen random mod 100 '<' {lost} drop",
        ]
    )

    def lead(port: int) -> None:
        led = f"iifname {near} tcp dport {PORT} dnat to {SERVER}:{port}"
        path.mux.run_lines(
            [f"{nft} flush chain ip straight to", f"{nft} add rule ip straight to {led}"]
        )

    try:
        yield lead
    finally:
        path.mux.run_lines([f"{nft} delete table ip straight"])
        path.mux.set("ipv4/ip_forward", "0")


def _transfers(seed: int, networks: Sequence[str], rounds: int) -> Iterator[str]:
    peers = (STRAIGHT, *PEERS)
    yield f"| network | program | {' | '.join(peers)} |"
    yield "|---|---|" + "---|" * len(peers)
    outcomes = []
    for network in networks:
        outcome = transfer(network, seed, rounds=rounds)
        outcomes.append(outcome)
        for row, names in _ROWS.items():
            cells = (" / ".join(outcome.median(peer, name) for name in names) for peer in peers)
            yield f"| `{network}` | {row} | {' | '.join(cells)} |"
        yield from outcome.failures
    yield f"{sum(outcome.moved for outcome in outcomes):,} bytes compared"


def _cables(rounds: int, chance: random.Random) -> Iterator[str]:
    yield "| proxy | cable | connection | seconds |"
    yield "|---|---|---|---|"
    for side in ("client", "server"):
        for is_quiet in (True, False):
            times: dict[str, list[float | None]] = {}
            for _ in range(rounds):
                names = chance.sample(list(ALL), len(ALL))
                for name, seconds in pulled(side, names, is_quiet=is_quiet).items():
                    times.setdefault(name, []).append(seconds)
            kind = "quiet" if is_quiet else "bytes on their way"
            for name in ALL:
                yield f"| {name} | {side}'s | {kind} | {_told(times[name])} |"


def _told(times: list[float | None]) -> str:
    known = [seconds for seconds in times if seconds is not None]
    found = [f"{min(known):.1f} to {max(known):.1f}"] if known else []
    if len(known) < len(times):
        found.append(f"not within {PATIENCE:g} s ({len(times) - len(known)} of {len(times)})")
    return ", ".join(found)


def _hellos(rounds: int, chance: random.Random) -> Iterator[str]:
    yield "| proxy | led to | bytes | seconds |"
    yield "|---|---|---|---|"
    for _ in range(rounds):
        for name, (led, seconds, whole) in sorted(
            hello_late(chance.sample(list(PEERS), len(PEERS))).items()
        ):
            yield f"| {name} | {led} | {'all' if whole else 'not all'} | {seconds:.2f} |"


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser(prog="beside")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=CONDITIONS)
    parts = ("transfers", "cables", "hellos")
    parser.add_argument("--only", nargs="*", default=parts, choices=parts)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    tables = {
        "transfers": _transfers(asked.seed, asked.networks, asked.rounds),
        "cables": _cables(asked.rounds, chance),
        "hellos": _hellos(asked.rounds, chance),
    }
    for part in asked.only:
        for line in tables[part]:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        sys.stdout.write("load: {:.0f}, {:.0f}, {:.0f}\n".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
