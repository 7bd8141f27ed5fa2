"""What workers learn of connections to servers in processes that accept no clients."""

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.processes.supervisor.pool import ServersElsewhere
from txmux.rules.model import Rules
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counters import Counters

_RULES = """
[listen a]
endpoint = 127.0.0.1:0
[route r]
match = ssh
backend = b
[route s]
match = any
backend = free
[backend b]
server = 127.0.0.1:1 {server}
server = 127.0.0.1:2
{backend}
[backend free]
server = 127.0.0.1:3
"""


def _rules(server: str = "", backend: str = "max_connections = 9") -> Rules:
    return parse(_RULES.format(server=server, backend=backend), "x")


class ServersElsewhereTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.rules = _rules()
        self.counters = Counters()
        self.counters.extend(self.rules)
        self.told: list[tuple[int, list[tuple[str, int]]]] = []
        workers = [self.worker(number) for number in range(3)]
        pool: Any = SimpleNamespace(workers=workers[:2], leaving=[workers[2]])
        self.pool = pool
        self.elsewhere = ServersElsewhere(pool, self.counters, lambda: self.rules)

    def worker(self, number: int) -> Any:
        def send(_: object, servers: list[dict[str, Any]]) -> None:
            rows = [(row["server"], row["connections"]) for row in servers]
            self.told.append((number, rows))

        return SimpleNamespace(number=number + 1, pid=100 + number, ready=True, send=send)

    def connect(self, number: int, server: str, backend: str = "b") -> Any:
        counts = self.counters.column(number + 1).server(backend, server)
        counts.connected()
        return counts

    def share(self, rules: Rules | None = None) -> list[tuple[int, list[tuple[str, int]]]]:
        self.rules = rules or self.rules
        self.elsewhere.share()
        told, self.told = self.told, []
        return told

    def test_equal_parts(self) -> None:
        """Each worker gets its part, once; what it has itself does not count, nor do servers without a limit."""
        for number in (0, 1, 2, 2, 2):
            counts = self.connect(number, "127.0.0.1:1")
        self.connect(2, "127.0.0.1:2")
        self.connect(2, "127.0.0.1:3", "free")
        first, second = "127.0.0.1:1", "127.0.0.1:2"
        self.assertEqual(self.share(), [(0, [(first, 2), (second, 1)]), (1, [(first, 1)])])
        self.assertEqual(self.share(), [])
        counts.released()
        self.assertEqual(self.share(), [(0, [(first, 1), (second, 1)])])

    def test_another_process_of_a_worker(self) -> None:
        """It has been told nothing yet; one that is not ready is told later."""
        self.connect(2, "127.0.0.1:1")
        self.pool.workers[1].ready = False
        self.assertEqual(self.share(), [(0, [("127.0.0.1:1", 1)])])
        self.pool.workers[0].pid += 100
        self.assertEqual(self.share(), [(0, [("127.0.0.1:1", 1)])])

    def test_no_longer(self) -> None:
        """Where nothing stays, or nothing is limited any more, workers are told so once; one that is about to be replaced is not."""
        self.connect(2, "127.0.0.1:1")
        self.share()
        self.assertEqual(self.share(_rules(backend="")), [(0, [])])
        self.assertEqual(self.share(), [])
        limited = _rules("max_connections=3", backend="")
        self.assertEqual(self.share(limited), [(0, [("127.0.0.1:1", 1)])])
        self.pool.leaving.clear()
        self.assertEqual(self.share(limited), [(0, [])])
        self.connect(0, "127.0.0.1:1")
        self.pool.leaving = [self.pool.workers[0]]
        self.assertEqual(self.share(), [(1, [("127.0.0.1:1", 1)])])
