"""First flights of clients over bad networks: each client is led where it is led on a good one."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path as FilePath

from campaign.networks.conditions import CONDITIONS
from campaign.networks.path import CLIENT, MUX, Path
from tests.interop.children import eventually, output_of
from tests.interop.mux import Mux
from tests.matchers.searching import order
from tests.matchers.test_corpus import routes, streams, taker
from tests.programs import require_program
from tests.support.undone import Undone
from txmux.detection.detector import Detector

_FIRST_PORT = 20_000
_SENT = 4
"""Times that a packet is sent in vain: once, and again three times."""
_CLIENTS = """
import contextlib, json, random, socket, sys
from concurrent.futures import ThreadPoolExecutor

own, host, port, seed, file = sys.argv[1:]

def send(number, data):
    chance = random.Random(f"{seed} {number}")
    client = socket.socket()
    client.settimeout(60)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.bind((own, number))
    # A client that is decided about before it has said all is turned away, and may not hear of it.
    with client, contextlib.suppress(OSError):
        client.connect((host, int(port)))
        while data:
            count = chance.choice((1, 2, 7, 50, 300, 2000))
            client.sendall(data[:count])
            data = data[count:]
        client.shutdown(socket.SHUT_WR)
        client.settimeout(20)
        client.recv(1)

flights = json.load(open(file))
with ThreadPoolExecutor(40) as threads:
    list(threads.map(lambda flight: send(flight[0], bytes.fromhex(flight[1])), flights))
print("sent", flush=True)
sys.stdin.read()
"""

_LISTEN = f"""
[listen all]
endpoint       = {MUX}:0
detect_timeout = 1h
"""
_ROUTE = """
[route {name}]
under   = *
match   = {name}
backend = close
"""


def decide(network: str, seed: int, every: int = 1) -> tuple[int, list[str]]:
    """Have clients of the corpus say what they say, in pieces, over a network.

    Args:
        network: Its name.
        seed: From what follows where the pieces are cut, and which packets are late.
        every: Only each so many-th of the corpus.

    Returns:
        How many there were, and a line for each that was led elsewhere than on a good network.
    """
    wanted: dict[int, str] = {}
    flights = []
    detector = Detector(routes())
    for number, stream in list(enumerate(streams()))[::every]:
        whole = detector.start_detection()
        port = _FIRST_PORT + number
        wanted[port] = taker(whole.feed(stream["data"]) or whole.finish())
        flights.append((port, stream["hex"]))
    with Undone() as undone:
        path = Path(undone, CONDITIONS[network], seed)
        folder = _make_folder(undone)
        mux = Mux(
            folder,
            _LISTEN + "".join(_ROUTE.format(name=name) for name in order()),
            before=path.mux.command,
        )
        undone.addCleanup(mux.child.end)
        file = folder / "flights"
        file.write_text(json.dumps(flights))
        clients = path.clients.python(_CLIENTS, CLIENT, MUX, str(mux.port), str(seed), str(file))
        undone.addCleanup(clients.end)
        eventually(lambda: len(_led(mux)) == len(wanted), "all clients are decided about")
        led = _led(mux)
        mux.stop()
    return len(wanted), [
        f"{network}, seed {seed}: {streams()[port - _FIRST_PORT]['source']}: {led[port]}, not {name}"
        for port, name in wanted.items()
        if led[port] != name
    ]


def _led(mux: Mux) -> dict[int, str]:
    return {int(line["client"].rpartition(":")[2]): line["route"] for line in mux.lines()}


_SAYING = """
import json, socket, sys
hello, clients = bytes.fromhex(sys.argv[3]), []
for port in json.loads(sys.argv[2]):
    clients.append(socket.create_connection((sys.argv[1], port), timeout=60))
    clients[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    clients[-1].sendall(hello[:1000])
print("half", flush=True)
sys.stdin.readline()
for client in clients:
    client.sendall(hello[1000:])
print("whole", flush=True)
sys.stdin.read()
"""
LATE = {"patient": "late", "hasty": "rest"}
"""Where half a ClientHello leads whose other half comes late: by its name, or where who is undecided goes."""
_HELLO_RULES = f"""
[listen patient]
endpoint       = {MUX}:0
detect_timeout = 10m
[listen hasty]
endpoint       = {MUX}:0
detect_timeout = 500ms
[route late]
under   = *
match   = tls sni=late.example.com
backend = close
[route rest]
under   = *
match   = any
backend = close
"""


class HalfHellos:
    """Clients whose ClientHello takes two packets, of which the second is lost until it is let through.

    Args:
        undone: Ends them.
        path: Where they are.
        ports: Those at `MUX`, one for each client.
        name: What they ask for.

    Attributes:
        hello: What each of them says.
    """

    def __init__(self, undone: Undone, path: Path, ports: Sequence[int], name: str) -> None:
        self._path = path
        self._count = len(ports)
        self._is_lost = True
        self.hello = _hello(name)
        clients = path.clients.python(_SAYING, MUX, json.dumps([*ports]), self.hello.hex())
        undone.addCleanup(clients.end)
        clients.wait_for("^half$")
        nft = self._nft = require_program("nft")
        path.mux.run_lines(
            [
                f"{nft} add table inet bad",
                f"{nft} add chain inet bad in '{{ type filter hook input priority filter; }}'",
                f"{nft} add rule inet bad in iifname {path.near.ends[1]} counter drop",
            ]
        )
        assert clients.process.stdin is not None
        clients.process.stdin.write(b"\n")
        clients.process.stdin.flush()
        clients.wait_for("^whole$")

    def let_through(self) -> bool:
        """Let the second packets through, if each client has sent its own four times, and tell whether that is so."""
        table = "inet bad"
        if self._is_lost:
            listed = output_of(*self._path.mux.command, self._nft, "list", "table", *table.split())
            lost = int(listed.decode().partition("packets ")[2].split()[0])
            if lost >= _SENT * self._count:
                self._path.mux.run_lines([f"{self._nft} delete table {table}"])
                self._is_lost = False
        return not self._is_lost


def lose_half_a_hello() -> dict[str, tuple[str, float]]:
    """Have the second packet of a ClientHello be lost, again and again.

    Returns:
        For a listener that waits for longer and one that does not, the route, and the seconds until the decision.
    """
    with Undone() as undone:
        path = Path(undone, CONDITIONS["good"], 0)
        mux = Mux(_make_folder(undone), _HELLO_RULES, before=path.mux.command)
        undone.addCleanup(mux.child.end)
        hellos = HalfHellos(undone, path, [*mux.ports.values()], "late.example.com")
        eventually(
            lambda: len(mux.lines()) == 1 and hellos.let_through(), "it was lost again and again"
        )
        eventually(lambda: len(mux.lines()) == len(mux.ports), "both are decided about")
        mux.stop()
        return {line["listener"]: (line["route"], line["detect_ms"] / 1000) for line in mux.lines()}


def _hello(name: str) -> bytes:
    """Make a ClientHello that takes two packets."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([f"protocol-{number:030}" for number in range(40)])
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def _make_folder(undone: Undone) -> FilePath:
    folder = FilePath(tempfile.mkdtemp(prefix="txmux-flights-"))
    undone.addCleanup(shutil.rmtree, folder)
    return folder
