"""What is sent to workers of rules, of removed routes, and of connections to servers in processes that accept no clients."""

from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txmux.access.across_processes import LimitsLayout
from txmux.detection.ranked import finish
from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.processes.supervisor.removed_routes import RemovedRoutes
from txmux.processes.supervisor.sent_rules import SentRules
from txmux.processes.supervisor.servers_elsewhere import ServersElsewhere
from txmux.rules.difference import Difference, digest
from txmux.rules.model import Backend, Route, Rules, Settings
from txmux.rules.packing import unpack_in_steps
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counters import Counters


def rules_of(*matches: str) -> Rules:
    text = "# a comment\n[listen p]\nendpoint = 127.0.0.1:1\n"
    for number, match in enumerate(matches):
        text += f"[route r{number}]\n# another comment\nmatch = {match}\nbackend = close\n"
    return parse(text, "x.ini")


class _Worker:
    """The supervisor's side of a worker that answers as it is told."""

    pid = 7

    def __init__(self, version: int, *answers: str) -> None:
        self.version = version
        self._answers = [*answers]
        self.asked: list[dict[str, Any]] = []

    def ask_to_prepare(self, *_: object, **values: Any) -> Deferred[bool]:
        self.asked.append(values)
        return succeed(self._answers.pop(0) == "yes")


class SentRulesTest(TestCase):
    async def sent(self, worker: Any, old: Rules, new: Rules) -> list[object]:
        await SentRules().prepare((old, 3), LimitsLayout(5), worker, dict, new, 4)
        self.assertEqual({one["digest"] for one in worker.asked}, {digest(new)})
        return [
            finish(unpack_in_steps(b64decode(one["rules"]), old)) if one["rules"] else None
            for one in worker.asked
        ]

    async def test_difference(self) -> None:
        old, new = rules_of("ssh", "tls"), rules_of("ssh", "http")
        worker = _Worker(3, "yes")
        [found] = await self.sent(worker, old, new)
        assert isinstance(found, Difference)
        self.assertEqual([one.start for one in found.routes], [1])
        self.assertEqual(worker.asked[0]["base"], 3)
        self.assertNotIn(b"comment", b64decode(worker.asked[0]["rules"]))
        # Of the same rules, nothing is sent.
        self.assertEqual(await self.sent(_Worker(3, "yes"), old, old), [None])
        # A worker with other rules gets all.
        for worker, count in ((_Worker(2, "yes"), 1), (_Worker(3, "no", "yes"), 2)):
            found = (await self.sent(worker, old, new))[-1]
            assert isinstance(found, Rules)
            self.assertEqual(found.files.texts, {})
            self.assertEqual([one.name for one in found.routes], ["r0", "r1"])
            self.assertEqual((len(worker.asked), worker.asked[-1]["base"]), (count, 0))
        with self.assertRaises(ChannelError):
            await self.sent(_Worker(3, "no", "no"), old, new)
        # All is sent where so much has changed that it is less work.
        old = rules_of(*["ssh", "tls"] * 250)
        new = rules_of(*["ssh", "http"] * 250)
        [found] = await self.sent(_Worker(3, "yes"), old, new)
        self.assertIsInstance(found, Rules)

    async def test_another_process(self) -> None:
        """One that has taken the worker's place while rules were packed is asked for nothing: it does not serve yet."""
        worker: Any = _Worker(3)
        old, new = (rules_of("ssh"), 3), (rules_of("tls"), 4)
        asking = SentRules().prepare(old, LimitsLayout(5), worker, dict, *new)
        prepared = Deferred.fromCoroutine(asking)
        worker.pid = 0
        with self.assertRaises(PeerGoneError):
            await prepared
        self.assertEqual(worker.asked, [])

    def test_places_are_added_to_messages_of_workers(self) -> None:
        rules = rules_of("ssh", "tls")
        for told, located in (
            ("worker 1: x.ini: [route r1] match: wrong", "worker 1: x.ini:10: [route r1] match: wrong"),
            ("worker 1: [route r0] match: no\n[listen p] endpoint: no", "worker 1: x.ini:6: [route r0] match: no\nx.ini:3: [listen p] endpoint: no"),
            ("x.ini:7: [route r0] match: no", "x.ini:7: [route r0] match: no"),
            ("[route gone] match: no", "[route gone] match: no"),
        ):  # fmt: skip
            self.assertEqual(rules.locate(told), located)
        several = parse("[listen p]\nendpoint = :1\n    127.0.0.1:2\n", "x.ini")
        told = "[listen p] endpoint: cannot listen at 127.0.0.1:2: no"
        self.assertEqual(several.locate(told), f"x.ini:3: {told}")


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


_NAMES = "a", "b", "c"


class RemovedRoutesTests(SynchronousTestCase):
    def test_back_in_the_meantime(self) -> None:
        """What is back ends nowhere, also in processes of older rules, and what is removed again has the whole time again."""
        sent: list[Any] = []
        pool: Any = SimpleNamespace(send_to_all=lambda _, **fields: sent.append(fields))
        rules = Rules(
            Path("x.ini"),
            Settings(),
            (),
            (Route("b", (), None), Route("c", (), None)),
            {"a": Backend("a", ())},
        )
        removed = RemovedRoutes(pool)
        removed.end_later(0, {"routes": [*_NAMES], "backends": [*_NAMES], "version": 2})
        removed.commit(rules)
        removed.end_later(60, {"routes": ["c"], "backends": ["a"], "version": 4})
        removed.look()
        self.assertEqual(sent, [{"routes": ["a"], "backends": ["b", "c"], "version": 2}])
        [(_, left)] = removed.rows
        self.assertEqual(left, {"routes": ["c"], "backends": ["a"], "version": 4})
