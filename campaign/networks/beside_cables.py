"""What proxies make of a cable that is pulled, and of half a ClientHello: all of them at once, each with its own port and servers."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Sequence

from campaign.networks.cables import Servers, pull_out
from campaign.networks.conditions import CONDITIONS
from campaign.networks.flights import HalfHellos
from campaign.networks.path import MUX, Path
from campaign.networks.peers import COUNT, IDLE, INTERVAL, Job, started
from campaign.networks.site import PASSED, PORT, make_folder
from tests.interop.children import eventually, output_of
from tests.support.undone import Undone

PATIENCE = 15.0
"""Seconds that are waited for an end."""

_CLIENTS = """
import json, socket, sys, threading, time

def send(client):
    while True:
        client.sendall(b"x")
        time.sleep(0.1)

def take(client):
    while client.recv(65536):
        pass

host, ports, words = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
kept = [socket.create_connection((host, port), timeout=60) for port in ports]
for client in kept:
    client.sendall(words.encode())
    client.recv(1)
    client.settimeout(None)
    if words != "hello":
        threading.Thread(target=send if words[0] == "u" else take, args=[client], daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def pulled(side: str, peers: Sequence[str], *, is_quiet: bool) -> dict[str, float | None]:
    """Pull the cable of a side, at its far end, and see when each proxy has ended its connection.

    Args:
        side: ``client`` or ``server``.
        peers: Names of proxies.
        is_quiet: Whether all that was said is acknowledged; otherwise bytes are on their way to whose cable is pulled.

    Returns:
        Seconds until no process has a socket of the connection any more; None, if that takes longer than `PATIENCE`.
    """
    with Undone() as undone:
        path = Path(undone, CONDITIONS["good"], 0)
        for name, value in (("time", IDLE), ("intvl", INTERVAL), ("probes", COUNT)):
            path.mux.set(f"ipv4/tcp_keepalive_{name}", str(value))
        jobs = []
        for number in range(len(peers)):
            servers = Servers()
            undone.addCleanup(servers.end)
            port = PORT + number
            jobs.append(Job(make_folder(undone), port, servers.tcp, servers.tcp, asks=True))
        with started(peers, path, jobs):
            ports = json.dumps([job.port for job in jobs])
            talking = "downtalking" if side == "client" else "uptalking"
            words = "hello" if is_quiet else talking
            clients = path.clients.python(_CLIENTS, MUX, ports, words)
            undone.addCleanup(clients.end)
            clients.wait_for("^ready$")
            if is_quiet:
                eventually(lambda: not _rows(path, "unacked"), "all is acknowledged")
            pull_out(path, side, ours=False)
            return dict(zip(peers, _ends(path, jobs), strict=True))


def _rows(path: Path, word: str) -> list[list[str]]:
    """Give the rows of connections in the network of the proxies of which something is told."""
    told = output_of(*path.mux.command, "ss", "-tineOH").decode()
    return [line.split() for line in told.splitlines() if re.search(word, line)]


def _ends(path: Path, jobs: Sequence[Job]) -> list[float | None]:
    began = time.monotonic()
    found: list[float | None] = [None] * len(jobs)
    while None in found and time.monotonic() - began < PATIENCE:
        # The system itself may still have one that no process has.
        rows = _rows(path, r"\bino:[1-9]")
        passed = time.monotonic() - began
        open_here = {row[3].rpartition(":")[2] for row in rows}
        open_there = {row[4].rpartition(":")[2] for row in rows}
        for number, job in enumerate(jobs):
            is_open = str(job.port) in open_here or str(job.rest) in open_there
            if not is_open and found[number] is None:
                found[number] = passed
        time.sleep(0.05)
    return found


def hello_late(peers: Sequence[str]) -> dict[str, tuple[str, float, bool]]:
    """Have the second packet of a ClientHello be lost, again and again.

    Returns:
        For each proxy the server that it led to, the seconds since the second packet was sent first, and whether that
        server got all bytes.
    """
    with Undone() as undone:
        path = Path(undone, CONDITIONS["good"], 0)
        jobs, listening = [], {}
        for number, peer in enumerate(peers):
            ports = []
            for kind in ("the name", "the other"):
                server = socket.create_server(("127.0.0.1", 0))
                undone.addCleanup(server.close)
                listening[server] = peer, kind
                ports.append(server.getsockname()[1])
            jobs.append(Job(make_folder(undone), PORT + number, *ports))
        with started(peers, path, jobs):
            hellos = HalfHellos(undone, path, [job.port for job in jobs], PASSED)
            began = time.monotonic()
            found = dict.fromkeys(peers, ("nobody", PATIENCE))
            taken: dict[str, socket.socket] = {}
            while len(taken) < len(peers) and time.monotonic() - began < PATIENCE:
                for server in select.select(listening, [], [], 0.02)[0]:
                    peer, kind = listening.pop(server)
                    found[peer] = kind, time.monotonic() - began
                    taken[peer] = server.accept()[0]
                    undone.addCleanup(taken[peer].close)
                hellos.let_through()
            return {
                peer: (*led, peer in taken and _take(taken[peer], hellos.hello))
                for peer, led in found.items()
            }


def _take(connected: socket.socket, wanted: bytes) -> bool:
    connected.settimeout(PATIENCE)
    heard = b""
    try:
        while len(heard) < len(wanted) and (some := connected.recv(len(wanted))):
            heard += some
    except OSError:
        pass
    return heard == wanted
