"""What a decision costs, with few routes and with many; nginx's `map` beside it.

    python benchmarks/detection.py

    python -m benchmarks.detection --figures mixed

The first prints a table in Markdown, the second a few figures as JSON, for `script/bench`. The decisions are those of the detector alone, without sockets. The connections are
whole ones over the loopback (connect, ClientHello, the answer or the end), through a service with so many names and
through nginx (`ssl_preread`, `map`) with as many; nginx is left out if it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.children import eventually, free_ports, is_listening
from benchmarks.quic import initials
from txmux import route
from txmux.detection.detector import Detector
from txmux.detection.flows import FlowDetection
from txmux.interfaces import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 5
CONNECTIONS = 300
MIXED = [
    "ssh software=libssh*",
    "http host=h{n}.example.com",
    "tls sni=*.h{n}.example.com",
    "redis",
    "payload offset=0 text=PROTO{n}",
    "regex pattern=X{n}[a-z]+",
]
DATAGRAM_ROUTES = [
    "dns name=h{n}.example.com",
    "quic sni=*.h{n}.example.com",
    "wireguard",
    "stun",
    "dtls",
]
TEN = [
    "redis",
    "payload offset=0 text=PROTO",
    "regex pattern=X[a-z]+",
    "postgres",
    "mqtt",
    "rdp",
    "xmpp",
    "tls sni=www.example.com",
    "http host=www.example.org",
    "ssh",
]
_CORPUS = Path(__file__).parent.parent / "tests/corpus/streams.json"
SSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
HTTP = b"GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"


def hello(name: str) -> bytes:
    """Make the ClientHello of this Python's OpenSSL."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        secure.do_handshake()
    return outgoing.read()


def post_quantum_hellos() -> list[bytes]:
    """Give hellos of browsers and of OpenSSL with a key share of X25519MLKEM768, for www.example.com."""
    streams = json.loads(_CORPUS.read_text())["streams"]
    return [bytes.fromhex(s["hex"]) for s in streams if s.get("sni") == "www.example.com"]


def made_hello(ciphers: int = 1, *extensions: bytes, record: int = 2**14) -> bytes:
    """Make a ClientHello (RFC 8446, section 4.1.2).

    Args:
        ciphers: How many cipher suites it offers.
        extensions: Each with its head.
        record: The most bytes of it in one record (section 5.1).
    """
    suites = b"".join((0x1301 + number).to_bytes(2, "big") for number in range(ciphers))
    body = b"\x03\x03" + bytes(32) + b"\x00" + _counted(suites, 2) + b"\x01\x00"
    message = b"\x01" + _counted(body + _counted(b"".join(extensions), 2), 3)
    pieces = (message[at : at + record] for at in range(0, len(message), record))
    return b"".join(b"\x16\x03\x01" + _counted(piece, 2) for piece in pieces)


def alpn(count: int, letters: int) -> bytes:
    """Make an extension with so many protocols of so many letters (RFC 7301, section 3.1)."""
    name = f"%0{letters}x"
    protocols = (_counted((name % (n % 16**letters)).encode(), 1) for n in range(count))
    return _extension(16, _counted(b"".join(protocols), 2))


def _extension(number: int, data: bytes) -> bytes:
    return number.to_bytes(2, "big") + _counted(data, 2)


def _counted(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


_PADDING = 21  # RFC 7685
_UNKNOWN = 0x4000
ODD_HELLOS = {
    "15,000 names by ALPN": made_hello(1, alpn(15_000, 3)),
    "100 names by ALPN, long ones": made_hello(1, alpn(100, 250)),
    "20,000 cipher suites": made_hello(20_000),
    "16,000 extensions": made_hello(1, *(_extension(_UNKNOWN + n, b"") for n in range(16_000))),
    "100 extensions": made_hello(1, *(_extension(_UNKNOWN + n, bytes(300)) for n in range(100))),
    "records of one byte": made_hello(1, _extension(_PADDING, bytes(2**12)), record=1),
}
"""Hellos that nobody has to serve, but that must not cost much."""


def microseconds(detector: Detector[Any], data: bytes, times: int = 1000) -> float:
    """Measure one decision, by the CPU time of this thread; the best of some rounds."""
    found = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(times):
            detector.start_detection().feed(data)
        found.append((time.thread_time() - start) / times * 1e6)
    return min(found)


def mixed_figures() -> dict[str, float]:
    """Measure decisions among ten mixed routes, and a crowded hello."""
    others = [route(MIXED[n % len(MIXED)].format(n=n), "close") for n in range(7)]
    own = [route(match, "close") for match in ("ssh", "http", "tls sni=www.example.com")]
    detector = Detector([*others, *own])
    odd = Detector([route("tls alpn=h2", "close"), route("tls ja4=t13d1516h2_*", "close")])
    costs = {
        shape: microseconds(odd, data, 10) / 1e3 / max(1.0, len(data) / 2**14)
        for shape, data in ODD_HELLOS.items()
    }
    return {
        "detection.ssh": microseconds(detector, SSH),
        "detection.http": microseconds(detector, HTTP),
        "detection.tls": microseconds(detector, hello("www.example.com")),
        "detection.pq": max(microseconds(detector, data) for data in post_quantum_hellos()),
        "detection.alpn": costs["15,000 names by ALPN"],
        "detection.odd": max(costs.values()),
        "detection.quic": quic_microseconds(),
    }


def quic_microseconds() -> float:
    """Measure decisions about QUIC clients, each with keys of its own, among ten routes; the best of some rounds."""
    own = "quic sni=www.example.com"
    lines = [DATAGRAM_ROUTES[n % len(DATAGRAM_ROUTES)].format(n=n) for n in range(9)]
    routes = (route(match, "close").for_transport(Transport.UDP) for match in (*lines, own))
    detector = Detector([found for found in routes if found is not None])
    asked = list(initials(hello("www.example.com")[5:], 200))
    found = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        decisions = [FlowDetection(detector).feed((data,)) for data in asked]
        found.append((time.thread_time() - start) / len(asked) * 1e6)
        assert all(d and d.route and d.route.name == own for d in decisions)
    return min(found)


def large_figures(count: int) -> dict[str, float]:
    """Measure a decision among so many names, each in a route of its own."""
    detector = Detector([route(f"tls sni=h{n}.example.com", "close") for n in range(count)])
    asked = (hello(f"h{n}.example.com") for n in (0, count // 2, count - 1))
    return {"large.decision": max(microseconds(detector, data, 300) for data in asked)}


def names(count: int) -> list[str]:
    """Give names, every other one with all names below it."""
    return [f"{'*.' * (n % 2)}h{n}.example.com" for n in range(count)]


def decisions() -> None:
    """Print what decisions cost."""
    print("| routes | client | µs a decision |\n|---|---|---|")
    for count in (10, 100, 1000, 10_000):
        detector = Detector([route(f"tls sni={name}", "close") for name in names(count)])
        for asked in (f"x.h{count - 1}.example.com", "h0.example.com", "unknown.example.org"):
            print(f"| {count} `tls sni=` | {asked} | {microseconds(detector, hello(asked)):.1f} |")
    ten = Detector([route(line, "close") for line in TEN])
    clients = (("SSH", SSH), ("HTTP", HTTP), ("TLS", hello("www.example.com")))
    for client, data in clients:
        print(f"| 10 mixed | {client} | {microseconds(ten, data):.1f} |")
    mixed = [route(MIXED[n % len(MIXED)].format(n=n), "close") for n in range(98)]
    detector = Detector([*mixed, route("ssh", "close"), route("http", "close")])
    for client, data in (("SSH", SSH), ("HTTP", HTTP)):
        print(f"| 100 mixed | {client} | {microseconds(detector, data):.1f} |")


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server while something is measured."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: is_listening(port), f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(10)


def connection_ms(port: int, data: bytes) -> float:
    """Measure whole connections, the median of some."""
    times = []
    for _ in range(CONNECTIONS):
        start = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(data)
            with contextlib.suppress(ConnectionResetError):
                client.recv(100)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def connections(folder: Path, port: int) -> None:
    """Print what whole connections cost, here and in nginx."""
    print("\n| names | txmux, ms a connection | nginx `map`, ms a connection |\n|---|---|---|")
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    for count in (10, 10_000):
        data = hello(f"x.h{count - 1}.example.com")
        rules = folder / "rules.ini"
        rules.write_text(
            f"[txmux]\naccess_log = off\n[listen x]\nendpoint = 127.0.0.1:{port}\n"
            + "".join(
                f"[route r{n}]\nmatch = tls sni={name}\nbackend = close\n"
                for n, name in enumerate(names(count))
            )
        )
        twist = str(Path(sys.executable).with_name("twist"))
        with running([twist, "txmux", "--rules", str(rules)], port):
            ours = connection_ms(port, data)
        theirs = "not installed"
        if nginx:
            config = folder / "nginx.conf"
            config.write_text(
                f"load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\n"
                f"pid {folder}/nginx.pid; error_log {folder}/error.log;\nevents {{}}\nstream {{\n"
                "map_hash_max_size 65536; map_hash_bucket_size 128;\n"
                "map $ssl_preread_server_name $answer { hostnames; default none;\n"
                + "".join(f"{name} {n};\n" for n, name in enumerate(names(count)))
                + f"}}\nserver {{ listen 127.0.0.1:{port}; ssl_preread on; return $answer; }}\n}}\n"
            )
            with running([nginx, "-c", str(config)], port):
                theirs = f"{connection_ms(port, data):.3f}"
        print(f"| {count} | {ours:.3f} | {theirs} |")


def main() -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--figures", choices=["mixed", "large"], help="only these, as JSON")
    options.add_argument("count", nargs="?", type=int, default=20_000, help="of large rules")
    chosen = options.parse_args()
    if chosen.figures:
        large = chosen.figures == "large"
        print(json.dumps(large_figures(chosen.count) if large else mixed_figures()))
        return
    decisions()
    with tempfile.TemporaryDirectory() as made, free_ports(1) as (port,):
        connections(Path(made), port)


if __name__ == "__main__":
    main()
