"""What txmux, HAProxy, nginx and sslh each make of a bad server, and of a machine that runs short of something.

    python -m campaign.machines.beside --rounds 3

It prints a table in Markdown, whose figures are the medians of all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import attrs

from campaign.machines.peers import PEERS, Proxy, Setting
from campaign.machines.servers import Bad, half, heard, reset
from campaign.machines.trouble import BAD, ECHO
from tests.interop.children import eventually
from tests.interop.namespaces import Namespace
from tests.processes.running import halted, serves
from tests.support.echo import EchoServer
from tests.support.peers import make_stalled_port
from tests.support.ports import free_port
from tests.support.undone import Undone

PATIENCE = 15.0
"""Seconds after which nobody waits any more."""
_TICKS = os.sysconf("SC_CLK_TCK")
_MANY = 60
_FLOOD = 2**30


@attrs.frozen
class Stage:
    """Where a trouble happens.

    Attributes:
        proxy: Who is in trouble.
        network: Where it is.
        undone: Ends what was begun.
    """

    proxy: Proxy
    network: Namespace
    undone: Undone

    def come(self, first: bytes = ECHO, address: str = "127.0.0.1") -> socket.socket:
        """Connect a client that says something."""
        client = socket.socket()
        self.undone.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.bind((address, 0 if address == "127.0.0.1" else free_port()))
        client.connect(("127.0.0.1", self.proxy.ports[first]))
        client.sendall(first)
        return client

    def serves(self) -> float:
        """Give the seconds until a new client has its answer; infinity if it gets none."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            with contextlib.suppress(OSError), self.come() as client:
                client.settimeout(max(0.001, PATIENCE - (time.monotonic() - began)))
                if client.recv(1):
                    return time.monotonic() - began
            time.sleep(0.01)
        return math.inf

    def answered(self, clients: Sequence[socket.socket]) -> int:
        """Count those that get their answer in time."""
        until, found = time.monotonic() + PATIENCE, 0
        for client in clients:
            client.settimeout(max(0.001, until - time.monotonic()))
            with contextlib.suppress(OSError):
                found += client.recv(1) == ECHO
        return found

    def memory(self) -> int:
        """Give the memory of all its processes that is not shared, in bytes (proc(5), ``RssAnon``)."""
        texts = self.proxy.told("status")
        return sum(1024 * int(text.partition("RssAnon:")[2].split()[0]) for text in texts)

    def cpu(self) -> float:
        """Give the seconds that its processes have worked (proc(5))."""
        stats = (Path(f"/proc/{pid}/stat").read_text() for pid in self.proxy.pids())
        return (
            sum(sum(map(int, stat.rpartition(") ")[2].split()[11:13])) for stat in stats) / _TICKS
        )


def end_of(client: socket.socket, until: float = math.inf) -> str:
    """Read to the end, and tell how it ended: ``end``, ``reset``, or ``late``."""
    try:
        client.settimeout(max(0.001, min(PATIENCE, until - time.monotonic())))
        while client.recv(2**16):
            pass
    except TimeoutError:
        return "late"
    except OSError:
        return "reset"
    return "end"


def _ends(stage: Stage) -> dict[str, float]:
    """See 20 clients of the bad server end, and others be served meanwhile."""
    began = time.monotonic()
    clients = [stage.come(BAD) for _ in range(20)]
    good = stage.serves()
    ends = [end_of(client, began + PATIENCE) for client in clients]
    seconds = math.inf if "late" in ends else time.monotonic() - began
    return {"seconds": seconds, "good": 1000 * good}


def _resets(stage: Stage) -> dict[str, float]:
    return {"resets": sum(end_of(stage.come(BAD)) == "reset" for _ in range(20))}


def _flood(stage: Stage) -> dict[str, float]:
    before = stage.memory()
    for client in [stage.come(BAD) for _ in range(8)]:
        client.recv(1)
    good = median(stage.serves() for _ in range(50))
    return {"memory": (stage.memory() - before) / 2**20, "good": 1000 * good}


def _descriptors(stage: Stage) -> dict[str, float]:
    def a_few_more(pid: int) -> int:
        return 20 + max(int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir())

    with stage.proxy.limited(resource.RLIMIT_NOFILE, a_few_more):
        clients = [stage.come() for _ in range(_MANY)]
        time.sleep(0.5)  # until all that can be done has been done
        before = stage.cpu()
        time.sleep(1)  # what is measured
        busy = stage.cpu() - before
    return {"answered": stage.answered(clients), "busy": 100 * busy, "after": stage.serves()}


def _address_space(stage: Stage) -> dict[str, float]:
    def a_little_more(pid: int) -> int:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        return pages * resource.getpagesize()

    with stage.proxy.limited(resource.RLIMIT_AS, a_little_more):
        clients = [stage.come() for _ in range(_MANY)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.settimeout(0.05)
                client.send(bytes(2**18))
    answered = stage.answered(clients)
    for client in clients:
        client.close()
    return {"answered": answered, "after": stage.serves()}


def _ports(stage: Stage) -> dict[str, float]:
    own = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    stage.network.set("ipv4/ip_local_port_range", "40000 40019")
    clients = [stage.come(ECHO, f"127.0.1.{number + 1}") for number in range(_MANY)]
    answered = stage.answered(clients)
    for client in clients:
        client.close()
    stage.network.set("ipv4/ip_local_port_range", own)
    return {"answered": answered, "after": stage.serves()}


def _halted(stage: Stage) -> dict[str, float]:
    with halted(stage.proxy.pids()):
        clients = [stage.come() for _ in range(40)]  # as many as the queue of each of them takes
        time.sleep(2)  # the trouble itself
    return {"answered": stage.answered(clients), "after": stage.serves()}


def _killed(stage: Stage) -> dict[str, float]:
    clients = [stage.come() for _ in range(20)]
    stage.answered(clients)
    victim = next(pid for pid in stage.proxy.pids() if serves(pid, clients[0]))
    os.kill(victim, signal.SIGKILL)
    with contextlib.suppress(OSError):
        clients[0].recv(1)
    after = stage.serves()
    for client in clients:
        with contextlib.suppress(OSError):
            client.sendall(ECHO)
    return {"whole": stage.answered(clients), "after": after}


def _nothing(_: socket.socket) -> None:
    """Say nothing."""


def _send_much(connection: socket.socket) -> None:
    heard(connection)
    piece = bytes(2**20)
    for _ in range(_FLOOD // len(piece)):
        connection.sendall(piece)


@attrs.frozen
class Trouble:
    """One of them.

    Attributes:
        name: As the table has it.
        shown: How its figures are shown.
        happen: Makes it, and gives the figures.
        server: What the bad server does; without it, nobody listens there.
        idle: As in `Setting`.
    """

    name: str
    shown: str
    happen: Callable[[Stage], Mapping[str, float]]
    server: Callable[[socket.socket], object] | str = ""
    idle: int = 3600


_MEANWHILE = "{seconds:.2f} s; {good:.1f} ms"
_AFTERWARDS = "{answered:.0f}; {after:.2f} s"
TROUBLES = (
    Trouble("server refuses: 20 clients closed after; others served within", _MEANWHILE, _ends),
    Trouble("server does not accept, limit of 1 s: the same", _MEANWHILE, _ends, "stalled"),
    Trouble("server says nothing, limit of 1 s: the same", _MEANWHILE, _ends, _nothing, 1),
    Trouble(
        "server resets in its answer: of 20 clients, those that see a reset",
        "{resets:.0f}",
        _resets,
        lambda connection: reset(half(connection)),
    ),
    Trouble(
        "8 clients that do not read a gigabyte: memory; others served within",
        "{memory:.1f} MiB; {good:.1f} ms",
        _flood,
        _send_much,
    ),
    Trouble(
        "no descriptors for a while: of 60 clients, those served; CPU time meanwhile; the next one",
        "{answered:.0f}; {busy:.0f}%; {after:.2f} s",
        _descriptors,
    ),
    Trouble("no memory for a while: of 60; the next one", _AFTERWARDS, _address_space),
    Trouble("20 local ports for a while: of 60; the next one", _AFTERWARDS, _ports),
    Trouble("halted for 2 s: of 40; the next one", _AFTERWARDS, _halted),
    Trouble(
        "a process killed: of 20 connections, those that go on; the next client",
        "{whole:.0f}; {after:.2f} s",
        _killed,
    ),
)
"""All of them."""


def attempt(trouble: Trouble, peer: str) -> Mapping[str, float]:
    """Have a fresh proxy in trouble, in a network of its own."""
    with Undone() as undone, tempfile.TemporaryDirectory(prefix="txmux-beside-") as folder:
        network = Namespace(undone)
        network.enter()
        echo = EchoServer()
        undone.addCleanup(echo.end)
        if callable(trouble.server):
            server = Bad(trouble.server)
            undone.addCleanup(server.end)
            bad = server.port
        else:
            bad = make_stalled_port(undone) if trouble.server else free_port()
        proxy = PEERS[peer](Setting(Path(folder), echo.port, bad, trouble.idle))
        undone.addCleanup(proxy.end)
        stage = Stage(proxy, network, undone)
        eventually(lambda: stage.serves() < PATIENCE, "it serves")
        time.sleep(0.2)  # a process may have been started for that client
        return trouble.happen(stage)


def cell(trouble: Trouble, rounds: Sequence[Mapping[str, float]]) -> str:
    """Write the medians of some rounds."""
    middle = {name: median(one[name] for one in rounds) for name in rounds[0]}
    return trouble.shown.format(**middle).replace("inf s", "never").replace("inf ms", "never")


def table(rounds: int, peers: Sequence[str], troubles: Sequence[Trouble]) -> Iterator[str]:
    """Have all of it, and give the lines of a table; each round has the peers in another order."""
    yield f"| | {' | '.join(peers)} |"
    yield "|---|" + "---|" * len(peers)
    for trouble in troubles:
        found: dict[str, list[Mapping[str, float]]] = {peer: [] for peer in peers}
        for number in range(rounds):
            for peer in (*peers[number % len(peers) :], *peers[: number % len(peers)]):
                found[peer].append(attempt(trouble, peer))
        cells = (cell(trouble, found[peer]) for peer in peers)
        yield f"| {trouble.name} | {' | '.join(cells)} |"


def main() -> None:
    """Compare as the command line says."""
    options = argparse.ArgumentParser(prog="beside")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--peers", default=",".join(PEERS))
    options.add_argument("--troubles", default="", help="only those with this in their names")
    asked = options.parse_args()
    chosen = [trouble for trouble in TROUBLES if asked.troubles in trouble.name]
    for line in table(asked.rounds, asked.peers.split(","), chosen):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
