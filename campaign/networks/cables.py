"""A cable that is pulled: each connection ends for the right reason, and within the time that the settings promise."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from contextlib import suppress

import attrs
from typing_extensions import override

from campaign.networks.conditions import filtered
from tests.interop.children import Child, eventually, output_of
from tests.interop.namespaces import Namespace, cable
from tests.interop.servers import make_certificate
from tests.support.folders import make_folder
from tests.support.services import Service
from tests.support.undone import Cleans, Undone

_MUX, _CLIENT = "192.0.2.1", "192.0.2.2"
_MUX_TO_SERVER, _SERVER = "198.51.100.1", "198.51.100.2"

_RULES = """
[listen asked]
endpoint = {mux}:0
keepalive = idle=1s interval=1s count=2
[listen secure]
endpoint = {mux}:0
keepalive = idle=1s interval=1s count=2
[listen unasked]
endpoint = {mux}:0
keepalive = no
[listen moving]
endpoint = {mux}:0
keepalive = idle=1s interval=1s count=2
[listen talking]
endpoint = {mux}:0
keepalive = idle=1s interval=1s count=2
[listen sealed]
endpoint = {mux}:0
keepalive = idle=1s interval=1s count=2
[listen silent]
endpoint = {mux}:0
detect_timeout = 2s
silent = close
[listen late]
endpoint = {mux}:0
[listen flow]
endpoint = udp:{mux}:0

[route asked]
under = asked, talking
match = any
backend = patient
[route ended]
under = secure, sealed
match = tls
terminate_tls = {certificate}
[route inside]
under = ended
match = any
backend = patient
[route others]
under = unasked, moving, late
match = any
backend = watched
[route flow]
under = flow
match = any
backend = flow

[backend patient]
server = {at}:{tcp}
[backend watched]
server = {at}:{tcp}
idle_timeout = 1s
connect_timeout = 2s
[backend flow]
server = udp:{at}:{udp}
idle_timeout = 2s
"""

_CLIENTS = """
import contextlib, json, socket, ssl, sys, threading, time
host, ports = sys.argv[1], json.loads(sys.argv[2])
kept = []

def connect(name):
    connected = socket.create_connection((host, ports[name]), timeout=60)
    kept.append(connected)
    return connected

def said(connected, words=b"hello"):
    connected.sendall(words)
    assert connected.recv(100) == b"hello"
    return connected

def seal(plain):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)

for name in ports:
    if name == "silent":
        connect(name)
    elif name == "secure":
        kept.append(said(seal(connect(name))))
    elif name == "flow":
        flow = socket.socket(type=socket.SOCK_DGRAM)
        flow.settimeout(60)
        flow.connect((host, ports[name]))
        kept.append(said(flow))
    elif name in ("moving", "talking", "sealed"):
        one = seal(connect(name)) if name == "sealed" else connect(name)
        kept.append(one)
        one.settimeout(None)
        way = sys.argv[3] + name
        one.sendall(way.encode())
        one.recv(1)
        def go_on(one=one, way=way, name=name):
            with contextlib.suppress(OSError):
                while one.recv(65536) if way[0] == "d" else one.sendall(bytes(65536 if name == "moving" else 1)) is None:
                    time.sleep(0 if name == "moving" else 0.1)
        threading.Thread(target=go_on, daemon=True).start()
    elif name != "late":
        said(connect(name))
print("ready", flush=True)
for line in sys.stdin:
    connect(line.strip()).sendall(b"hello")
"""


@attrs.frozen
class Promise:
    """How a connection has to end: the reason in the access log, and seconds from its last byte, or from when it was accepted."""

    reason: str
    seconds: float


_KEEPALIVE = 3.0  # a second of quiet, and two questions of a second each
_IDLE, _HALF_CLOSE = 1.0, 1.0
SLACK = 60.0
"""Seconds that an end may be late on a machine that is busy."""


def promises(side: str, *, ours: bool) -> dict[str, Promise]:
    """Return how the connections of each listener have to end when an end of the cable of a side is pulled."""
    found = {
        "asked": Promise(f"{side}-reset", _KEEPALIVE),
        "secure": Promise(f"{side}-reset", _KEEPALIVE),
        "unasked": Promise("idle-timeout", _IDLE),
        # While bytes are on their way, the system does not ask, but sends them again, for a quarter of an hour.
        "talking": Promise(f"{side}-reset", _KEEPALIVE),
        "sealed": Promise(f"{side}-reset", _KEEPALIVE),
        # What is on its way to the peer has its time, too.
        "moving": Promise("idle-timeout", _IDLE + _HALF_CLOSE),
        "flow": Promise("idle-timeout", 2.0),
    }
    if side == "client":
        found["silent"] = Promise("silent", 2.0)
    elif ours:
        found["late"] = Promise("connect-refused", 0.0)  # no route leads there any more
    else:
        found["late"] = Promise("connect-timeout", 2.0)
    return found


class _Answering(socketserver.BaseRequestHandler):
    """Says what it hears; but to ``down``, it never stops to answer, and of ``up``, it only takes the rest."""

    @override
    def handle(self) -> None:
        with suppress(OSError):
            while heard := self.request.recv(65536):
                self.request.sendall(heard)
                while heard.startswith(b"down"):
                    is_moving = heard.endswith(b"moving")
                    self.request.sendall(bytes(65536 if is_moving else 1))
                    time.sleep(0 if is_moving else 0.1)
                while heard.startswith(b"up") and self.request.recv(65536):
                    pass


class _AnsweringDatagrams(socketserver.BaseRequestHandler):
    @override
    def handle(self) -> None:
        heard, end = self.request
        end.sendto(heard, self.client_address)


def _serve(undone: Cleans, server: socketserver.TCPServer) -> int:
    undone.addCleanup(server.server_close)
    undone.addCleanup(server.shutdown)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    port: int = server.server_address[1]
    return port


class Pulled:
    """Connections of all kinds through a service with short times, and their cables.

    Args:
        undone: Ends all.
        relay: As in ``[txmux]``.
        side: Whose cable is to be pulled: ``client`` or ``server``.
        ours: Which of its ends: the one at the machine of txmux, whose system knows that then, or the other one.
    """

    def __init__(self, undone: Cleans, relay: str, side: str, *, ours: bool) -> None:
        clients, self._middle, servers = (Namespace(undone) for _ in range(3))
        near = cable(clients, [f"{_CLIENT}/24"], self._middle, [f"{_MUX}/24"])
        far = cable(servers, [f"{_SERVER}/24"], self._middle, [f"{_MUX_TO_SERVER}/24"])
        self._end = (near if side == "client" else far)[1]
        self._other = clients if side == "client" else servers
        servers.enter()
        streams = socketserver.ThreadingTCPServer((_SERVER, 0), _Answering)
        streams.daemon_threads = True
        folder = make_folder(undone)
        rules = _RULES.format(
            mux=_MUX,
            at=_SERVER,
            tcp=_serve(undone, streams),
            udp=_serve(undone, socketserver.UDPServer((_SERVER, 0), _AnsweringDatagrams)),
            certificate=make_certificate(folder, "example.com").both,
        )
        settings = f"relay = {relay}\ndrain_timeout = 0s"
        self.mux = Service(folder, rules, settings, before=self._middle.command)
        undone.addCleanup(self.mux.child.end)
        self.promises = promises(side, ours=ours)
        self._ours = ours
        ports = {name: self.mux.ports[name] for name in self.promises}
        way = "down" if side == "client" else "up"
        self.clients: Child = clients.python(_CLIENTS, _MUX, json.dumps(ports), way)
        undone.addCleanup(self.clients.end)
        self.clients.wait_for("^ready$")
        eventually(self._is_quiet, "all that was said is acknowledged")

    def _is_quiet(self) -> bool:
        """Return whether nothing is on its way to clients, but for what never stops."""
        told = output_of(*self._middle.command, "ss", "-tnH", "state", "established").decode()
        loud = {str(self.mux.ports[name]) for name in ("moving", "talking", "sealed")}
        rows = [line.split() for line in told.splitlines()]
        return not any(
            int(queued) for _, queued, here, *_ in rows if here.rpartition(":")[2] not in loud
        )

    def pull(self) -> None:
        if self._ours:
            self._middle.ip(f"link set {self._end} down")
        else:  # whose other end does not know it
            self._other.run_lines([*filtered("input", "drop"), *filtered("output", "drop")])

    def say(self, line: str) -> None:
        assert self.clients.process.stdin is not None
        self.clients.process.stdin.write(f"{line}\n".encode())
        self.clients.process.stdin.flush()

    def ends(self) -> tuple[dict[str, float], list[str]]:
        """Wait for the ends of all connections, and return the seconds until each, and a line for each that was not as promised."""
        began = time.monotonic()
        longest = max(promise.seconds for promise in self.promises.values()) + SLACK
        found: dict[str, float] = {}
        defects = []
        while len(found) < len(self.promises) and time.monotonic() - began < longest:
            passed = time.monotonic() - began
            for line in self.mux.lines():
                name, reason = line["listener"], line["reason"]
                if name in found:
                    continue
                found[name] = passed
                promise = self.promises[name]
                too_early = line["duration_ms"] < promise.seconds * 900
                if reason != promise.reason or too_early or passed > promise.seconds + SLACK:
                    defects.append(f"{name}: {reason} after {passed:.1f} s, not {promise}")
            time.sleep(0.02)
        defects += [f"{name}: still there" for name in self.promises.keys() - found.keys()]
        return found, defects


def pulled(relay: str, side: str, *, ours: bool) -> tuple[dict[str, float], list[str]]:
    """Pull a cable, and return how all connections end, as `Pulled.ends` does."""
    with Undone() as undone:
        cables = Pulled(undone, relay, side, ours=ours)
        cables.pull()
        if side == "server":
            cables.say("late")
        found, defects = cables.ends()
        cables.mux.stop()
    where = f"{side}'s cable pulled at {'its near' if ours else 'its far'} end, {relay} relay"
    return found, [f"{where}: {defect}" for defect in defects]
