"""What a service goes on with, whatever is done to it: each state is looked at after each change, in one service."""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.admin.processes import text_of
from tests.processes.running import Pair, with_more, with_workers
from tests.support.kit import PATIENCE, EchoServer, Record, WorkersTestCase, eventually, free_port
from tests.support.proc import named

pytestmark = pytest.mark.by_turns(each=True)

_RULES = """
[listen plain]
endpoint = 127.0.0.1:0
detect_timeout = 10m
end_denied = yes
[route ssh]
under = plain
match = ssh
backend = 127.0.0.1:1
[route all]
under = plain, few
match = any
backend = 127.0.0.1:{here}
[listen few]
endpoint = 127.0.0.1:0
max_connections_per_source = 2
[listen rated]
endpoint = 127.0.0.1:0
connection_rate_per_source = 3/h burst=3
[listen shut]
endpoint = 127.0.0.1:0
default = 127.0.0.1:{here}
[listen held]
endpoint = 127.0.0.1:0
default = held
[listen proxied]
endpoint = 127.0.0.1:0
accept_proxy_from = 127.0.0.1
proxy_timeout = 10m
default = held
[backend held]
server = 127.0.0.1:{here}
[listen drained]
endpoint = 127.0.0.1:0
default = drained
[backend drained]
server = 127.0.0.1:{one}
[listen turns]
endpoint = 127.0.0.1:0
default = turns
[backend turns]
server = 127.0.0.1:{one}
    127.0.0.1:{other}
[listen pool]
endpoint = 127.0.0.1:0
default = pool
[backend pool]
balance = first
server = 127.0.0.1:{dead}
    127.0.0.1:{one}
check = tcp interval=200ms fall=2
[listen datagrams]
endpoint = udp:127.0.0.1:0
default = udp:127.0.0.1:{datagrams}
"""
_HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
_METRICS = ("connections_total", "connections_active", "route_matches_total", "bytes_total")


class ChangesTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ready, self.gate = self.late_upgrade("_have_it_serve")
        self.gate.touch()
        self.listening = self.backend()
        self.asked, self.asking = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        for end in (self.asked, self.asking):
            self.addCleanup(end.close)
            end.settimeout(PATIENCE)
            end.bind(("127.0.0.1", 0))
        self.one = self.own(EchoServer()).port
        self.dead = free_port()
        rules = _RULES.format(
            here=self.listening.getsockname()[1],
            one=self.one,
            other=self.own(EchoServer()).port,
            dead=self.dead,
            datagrams=self.asked.getsockname()[1],
        )
        self.metrics = self.folder / "metrics.sock"
        settings = "workers = 1\nrelay = portable\ndrain_timeout = 10m\nmetrics = unix:"
        self.mux = self.upgrading(rules, f"{settings}{self.metrics}", admin=True)
        self.clients = 0

    def come(self, listener: str, said: bytes = b"x", source: str = "127.0.0.1") -> socket.socket:
        self.clients += 1
        place = "127.0.0.1", self.mux.ports[listener]
        client = self.enterContext(socket.create_connection(place, PATIENCE, (source, 0)))
        client.sendall(said)
        return client

    def relay(self, listener: str) -> Pair:
        return self.come(listener), self.accept_from(self.listening, b"x")

    def visit(self, listener: str, source: str = "127.0.0.1") -> Record:
        """Have a client come and leave when it has heard something, and return its line of the log."""
        with contextlib.suppress(ConnectionError), self.come(listener, source=source) as client:
            client.recv(1)
        return self.mux.take_one(listener)

    def ask(self) -> object:
        """Have the flow carry a datagram each way, and return from where the server sees it."""
        self.asking.sendto(b"x", ("127.0.0.1", self.mux.ports["datagrams"]))
        _, seen = self.asked.recvfrom(9)
        self.asked.sendto(b"y", seen)
        self.assertEqual(self.asking.recv(9), b"y")
        return seen

    def reload(self) -> None:
        self.assertIn("1 route new", self.mux.reload(self.another_route()))

    def another_route(self) -> tuple[str, str]:
        name = f"r{time.monotonic_ns()}"
        return with_more(f"[route {name}]\nunder = shut\nmatch = ssh\nbackend = close\n")

    @contextlib.contextmanager
    def wrong(self) -> Iterator[None]:
        text = self.mux.file.read_text()
        self.mux.file.write_text(f"{text}\ncolour = blue\n")
        yield
        self.mux.file.write_text(text)

    def refused_reload(self) -> None:
        with self.wrong():
            self.assertIn("reload failed", self.mux.reload())
        self.assertIn("colour", str(self.mux.api("status")["last_reload"]["errors"]))

    def refused_upgrade(self) -> None:
        with self.wrong():
            self.mux.refuse("colour")

    def failed_upgrade(self) -> None:
        """The new process ends when it is about to serve, so that the old one serves again."""
        self.gate.unlink()
        self.ready.unlink(missing_ok=True)
        self.upgrade_until(self.mux, self.ready)
        for pid in named(self.mux.pid, "supervis"):
            os.kill(pid, signal.SIGKILL)
        self.gate.touch()
        self.mux.child.wait_for("upgrade failed, the old process keeps serving: .*is gone")

    def upgrade(self) -> None:
        """Have another process serve, which counts on, and goes on with the turns of servers."""
        server, before = self.visit("turns")["server"], self.counts()
        while before != (before := self.counts()):
            pass
        self.mux.replace()
        self.mux.child.wait_for(f"upgraded: process {self.mux.pid} ")
        eventually(lambda: self.counts() == before, "it counts on")
        if self.count_workers() == 1:
            self.assertNotEqual(self.visit("turns")["server"], server)
        self.assertEqual((self.mux.api("status")["last_reload"] or {"errors": []})["errors"], [])
        eventually(self.is_moved, "what has moved says its route, and no more of its decision")

    def is_moved(self) -> bool:
        (row,) = self.mux.api("connections?listener=plain&state=relaying")
        told = self.mux.api(f"connections/{row['id']}")
        decision = told["explanation"]
        return (told["route"], decision["bytes"], decision["routes"]) == ("all", None, [])

    def upgrade_to_other_rules(self) -> None:
        relay = "kernel" if "relay = portable" in self.mux.file.read_text() else "portable"
        self.mux.edit(self.another_route(), ("relay = .*", f"relay = {relay}"))
        self.upgrade()

    def resize(self) -> None:
        count = {1: 3, 3: 1}[self.count_workers()]
        self.assertIn("workers of [txmux]", self.mux.reload(with_workers(count)))

    def count_workers(self) -> int:
        return len([row for row in self.mux.api("status")["workers"] if not row["retiring"]])

    def replace_worker(self) -> None:
        rows = self.mux.api("status")["workers"]
        with self.more_serve(self.mux):
            os.kill(next(row["pid"] for row in rows if not row["retiring"]), signal.SIGTERM)

    def counts(self) -> list[float]:
        families = text_string_to_metric_families(text_of(self.metrics, "/metrics"))
        samples = [sample for family in families for sample in family.samples]
        return [
            sum(one.value for one in samples if one.name == f"txmux_{name}") for name in _METRICS
        ]

    def listed(self) -> set[str]:
        return {row["id"] for row in self.mux.api("connections")}

    def begin(self) -> None:
        mux = self.mux
        mux.child.wait_for(f"127.0.0.1:{self.dead} is down")
        self.inodes, self.flow = mux.inodes(), self.ask()
        self.pairs = [self.relay(name) for name in ("plain", "few", "few")]
        self.undecided = [self.come("plain", b"S") for _ in range(2)]
        for _ in range(3):
            self.assertEqual(self.visit("rated")["reason"], "no-route")
        mux.api("backends/held/hold", {"seconds": 3600})
        self.half = self.come("proxied", _HEADER[:20])
        self.held = [self.come("held", b"held 0"), self.come("proxied", _HEADER + b"held 1")]
        mux.api(f"backends/drained/servers/127.0.0.1:{self.one}", {"state": "drain"})
        mux.api("listeners/shut", {"accepting": False})
        mux.api("bans", {"network": "127.0.0.9", "seconds": 3600})
        [self.ban] = mux.api("bans")
        eventually(lambda: len(mux.api("recent")) == 3, "what has ended is listed")
        self.ended = {row["id"] for row in mux.api("recent")}
        eventually(lambda: self.held_clients() == 2, "they wait")
        eventually(lambda: len(self.listed()) == 9, "all have been accepted")
        self.known = self.listed()
        self.version = mux.api("status")["generation"]

    def held_clients(self) -> int:
        return sum(backend["held"] for backend in self.mux.api("backends"))

    def check(self) -> None:
        """Find all as it was, by old clients and new ones."""
        mux = self.mux
        self.assertEqual((mux.inodes(), self.ask()), (self.inodes, self.flow))
        eventually(lambda: self.listed() == self.known, "the same connections are listed")
        for pair in self.pairs:
            self.answers(*pair)
        for told in mux.api("connections?state=relaying"):
            self.assertIn(told["listener"], ("plain", "few", "datagrams"))
        self.over(*self.relay("plain"))
        self.assertEqual(mux.take_one("plain")["reason"], "done")
        expected = {"few": "limit", "rated": "limit", "drained": "no-server", "pool": "done"}
        for listener, reason in expected.items():
            line = self.visit(listener)
            self.assertEqual((line["reason"], "tried" in line["facts"]), (reason, False), listener)
        self.assertEqual(mux.output.count(f"127.0.0.1:{self.dead} is down"), 1)
        self.assertEqual(self.visit("plain", "127.0.0.9")["reason"], "denied")
        self.assertAlmostEqual(mux.api("bans")[0]["until"], self.ban["until"], places=1)
        status = mux.api("status")
        self.assertEqual(status["generation"], self.version)
        shut = [row["name"] for row in status["listeners"] if not row["accepting"]]
        self.assertEqual(shut, ["shut"])
        eventually(lambda: self.held_clients() == 2, "they still wait")
        [held] = [item["text"] for item in status["attention"] if item["what"] == "hold"]
        self.assertRegex(held, "backend held: held by an operator, for .*: 2 clients wait")
        self.assertLessEqual(self.ended, {row["id"] for row in mux.api("recent")})

    def finish(self) -> None:
        """Undo all that holds clients up: each is served, and counted once."""
        mux = self.mux
        waiting = self.come("shut")
        mux.api("listeners/shut", {"accepting": True})
        self.pairs.append((waiting, self.accept_from(self.listening, b"x")))
        self.half.sendall(_HEADER[20:] + b"held 2")
        self.held.append(self.half)
        mux.api("backends/held/release", {})
        for _ in self.held:
            server = self.accept_from(self.listening, b"held ")
            self.pairs.append((self.held[int(server.recv(1))], server))
        self.undecided[0].sendall(b"x")
        self.pairs.append((self.undecided[0], self.accept_from(self.listening, b"Sx")))
        mux.api(f"backends/drained/servers/127.0.0.1:{self.one}", {"state": "ready"})
        mux.api("bans/remove", {"network": "127.0.0.9"})
        self.assertEqual(self.visit("drained", "127.0.0.9")["reason"], "done")
        for pair in self.pairs[1:]:
            self.answers(*pair)
            self.over(*pair)
        # The flow is counted, too.
        eventually(lambda: self.counts()[:2] == [self.clients + 1, 3], "all are counted")
        # A ban reaches old workers, too.
        mux.api("bans", {"network": "127.0.0.1", "seconds": 600})
        lines = mux.take(3, "plain")
        self.assertEqual(sorted(line["reason"] for line in lines), ["denied", "denied", "done"])
        # A sample of charts was taken at the start of each process, and a chart has the time between two.
        page = text_of(mux.admin, "/")
        times = re.findall(r'data-chart="active" data-times="\[(.*)\]" data', page)
        self.assertNotEqual(times, [""])
        self.assertEqual(mux.api("connections/close", {"listener": "datagrams"})["closed"], 1)
        mux.stop()

    def test_states(self) -> None:
        changes: tuple[tuple[Callable[[], None], int], ...] = (
            (self.reload, 1), (self.refused_reload, 0), (self.upgrade, 0), (self.refused_upgrade, 0),
            (self.failed_upgrade, 0), (self.replace_worker, 0), (self.resize, 1),
            (self.upgrade_to_other_rules, 1), (self.replace_worker, 0), (self.resize, 1),
            (self.upgrade_to_other_rules, 1),
        )  # fmt: skip
        self.begin()
        self.check()
        for number, (change, versions) in enumerate(changes, 1):
            try:
                change()
                self.version += versions
                self.check()
            except BaseException as error:
                error.add_note(f"change {number}: {change.__name__}")
                raise
        self.finish()
