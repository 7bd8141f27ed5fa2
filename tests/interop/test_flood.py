"""One source that floods txmux takes nothing from others. How fast they are served then, ``benchmarks/flood.py`` measures."""

import contextlib
import re
import resource
import select
import socket
import sys
from collections import Counter
from pathlib import Path
from unittest import SkipTest

from benchmarks.flood import BIND_ADDRESS_NO_PORT
from tests.interop.originals import client_hello
from tests.support.kit import PATIENCE, ThreadServer, WorkersTestCase, eventually, make_authority
from tests.support.proc import family_of
from tests.support.secure import client_context
from tests.support.services import Record, Service

BAD, GOOD = "127.0.0.2", "127.0.0.3"
PING, PONG = b"PING\n", b"PONG\n"
MIB = 2**20

RULES = """
[listen public]
endpoint = 127.0.0.1:0
detect_timeout = 20m
[route good]
match   = payload text=PING
backend = 127.0.0.1:{backend}
[route site]
match   = tls sni=www.example.com
backend = 127.0.0.1:{backend}
{tls}
"""


class FloodTest(WorkersTestCase):
    def setUp(self) -> None:
        if sys.platform != "linux":
            raise SkipTest("only Linux has all of 127.0.0.0/8")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # of the service, too
        self.many = 5000 if hard == resource.RLIM_INFINITY or hard > 12_000 else 300
        server = ThreadServer(answer)
        self.addCleanup(server.end)
        self.port = server.port

    def flooded(self, tls: str = "") -> Service:
        rules = RULES.format(backend=self.port, tls=tls)
        mux = Service(self.folder, rules, "drain_timeout = 0s")
        self.addCleanup(mux.child.end)
        return mux

    def come(self, mux: Service, source: str = BAD) -> socket.socket:
        client = self.enterContext(socket.socket())
        client.settimeout(PATIENCE)
        # To look for a free port at once takes long when there are few.
        client.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        client.bind((source, 0))
        client.connect(("127.0.0.1", mux.port))
        return client

    def be_served(self, mux: Service) -> None:
        with self.come(mux, GOOD) as client:
            client.sendall(PING)
            self.assertEqual(client.recv(100), PONG)

    def wait_for_lines(self, mux: Service, count: int) -> list[Record]:
        def lines() -> list[Record]:
            """Give the lines of these clients, a line for several as often as it counts."""
            bad = (line for line in mux.lines("") if line["client"].startswith(f"{BAD}:"))
            return [line for line in bad for _ in range(line.get("count", 1))]

        eventually(lambda: len(lines()) >= count, f"there are {count} ends of {BAD}")
        return lines()

    def test_all_are_kept(self) -> None:
        """Without limits they are waited for; meanwhile others are served, and a client costs little memory."""
        mux = self.flooded()
        self.be_served(mux)
        before = memory(mux)
        clients = [self.come(mux) for _ in range(self.many)]
        for _ in range(20):
            self.be_served(mux)
        poll = select.poll()
        for client in clients:
            poll.register(client, select.POLLIN)
        self.assertEqual(poll.poll(0), [])  # who has been heard of nothing is not closed
        self.assertLess(memory(mux) - before, self.many * 8192)
        for client in clients:
            client.close()
        lines = self.wait_for_lines(mux, self.many)
        self.assertEqual(Counter(line["reason"] for line in lines), {"client-gone": self.many})
        self.be_served(mux)
        mux.stop()

    def test_handshakes_of_one_source(self) -> None:
        """Few are done at once, the others wait; neither takes much memory, and other sources are served."""
        file = make_authority().issue("www.example.com").write(self.folder / "site.pem", key=True)
        mux = self.flooded(tls=f"terminate_tls = {file}")
        context = client_context(None)

        def be_served() -> None:
            name = "www.example.com"
            with context.wrap_socket(self.come(mux, GOOD), server_hostname=name) as client:
                client.sendall(PING)
                self.assertEqual(client.recv(100), PONG)

        be_served()
        before = memory(mux)
        hello = client_hello("www.example.com")
        many = min(self.many, 1500)
        clients = [self.come(mux) for _ in range(many)]
        for part in (hello[:100], hello[100:], b"\x14"):
            for client in clients:
                with contextlib.suppress(OSError):  # it had to make room
                    client.sendall(part)
            be_served()
        mux.reload()
        be_served()
        self.assertLess(memory(mux) - before, 20 * MIB)
        for client in clients:
            client.close()
        lines = self.wait_for_lines(mux, many)
        self.assertLessEqual({line["reason"] for line in lines}, {"limit", "tls-failed"})
        be_served()
        mux.stop()


def answer(client: socket.socket) -> None:
    if client.recv(100) == PING:
        client.sendall(PONG)


def memory(mux: Service) -> int:
    """Give the resident memory of all processes of the service in bytes (proc(5))."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in family_of(mux.child.pid)]
    return sum(int(size) for size in re.findall(r"VmRSS:\s+(\d+)", "".join(texts))) * 1024
