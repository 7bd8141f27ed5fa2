"""What a decision costs, with few routes and with many; nginx's `map` beside it.

    python benchmarks/detection.py

Prints a table in Markdown. The decisions are those of the detector alone, without sockets. The connections are
whole ones over the loopback (connect, ClientHello, the answer or the end), through a service with so many names and
through nginx (`ssl_preread`, `map`) with as many; nginx is left out if it is not installed.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from txmux import route
from txmux.detection.detector import Detector

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
SSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
HTTP = b"GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"


def hello(name: str) -> bytes:
    """Make the ClientHello of this Python's OpenSSL."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        secure.do_handshake()
    return outgoing.read()


def microseconds(detector: Detector, data: bytes) -> float:
    """Measure one decision, the best of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(1000):
            detector.begin().feed(data)
        times.append((time.perf_counter() - start) * 1000)
    return min(times)


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
    mixed = [route(MIXED[n % len(MIXED)].format(n=n), "close") for n in range(98)]
    detector = Detector([*mixed, route("ssh", "close"), route("http", "close")])
    for client, data in (("SSH", SSH), ("HTTP", HTTP)):
        print(f"| 100 mixed | {client} | {microseconds(detector, data):.1f} |")


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server while something is measured."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
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


def connections(folder: Path) -> None:
    """Print what whole connections cost, here and in nginx."""
    print("\n| names | txmux, ms a connection | nginx `map`, ms a connection |\n|---|---|---|")
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    for count in (10, 10_000):
        data = hello(f"x.h{count - 1}.example.com")
        port = free_port()
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


if __name__ == "__main__":
    decisions()
    with tempfile.TemporaryDirectory() as made:
        connections(Path(made))
