from typing import Any

from twisted.internet.defer import ensureDeferred

from tests.support.kit import PeerFactory, ServiceTestCase, VirtualTime, listen
from txmux.backends.pool.ports import PORT_SHORTAGE
from txmux.control.gauges import GAUGES
from txmux.control.worker_answers import WorkerAnswers
from txmux.telemetry.attention import OF_FEW
from txmux.telemetry.counting.counter_groups import ListenerTotals

_RULES = """
[txmux]
access_log = LOG
[listen x]
endpoint = 127.0.0.1:0
connection_rate_per_source = 99/s
silent = close
default = b
[listen u]
endpoint = udp:127.0.0.1:0
[route other]
under = x
match = http
from = 192.0.2.0/24
backend = close
[route dry]
under = x
match = ssh
dry_run = yes
backend = close
[route ssh]
under = x
match = ssh
backend = b
[route late]
under = x
match = tls
backend = close
[backend b]
server = 127.0.0.1:{}
    127.0.0.1:1 weight=3 down
"""


class AnswersTest(ServiceTestCase):
    async def test_of_one_process(self) -> None:
        """What it says of its connections, one that is undecided, and one that has a server; and what it ends."""
        backend, clock = PeerFactory(), VirtualTime()
        server = f"127.0.0.1:{listen(self, backend)}"
        port, _ = self.run_service(_RULES.format(server.rpartition(":")[2]), use=clock)
        serving: Any = self.running.serving
        answers, events = WorkerAnswers(serving), list[dict[str, Any]]()
        answers.listen(events.append)
        clients = [await self.client(port, data) for data in (b"SSH-2.0-a\r\n", b"SS", b"\0\1")]
        for number in (0, 1):
            await (await backend.peer(number)).has(2)
        await self.until(lambda: [one for one in serving.connections() if len(one.received) == 2])
        clock.advance(1)
        (await backend.peer()).send(b"answer")
        await clients[0].has(6)
        clock.advance(1)
        first, second, third = rows = await answers.connections({}, 9)
        for arguments, ids in (
            (({}, 1), [first["id"]]), (({}, 9, first["id"]), [second["id"], third["id"]]), (({}, 9, "", second["id"]), [second["id"]]),
            (({"state": "peeking"}, 9), [second["id"]]), (({"route": "ssh"}, 9), [first["id"]]),
            (({"older": "2s"}, 2), [first["id"], second["id"]]), (({"older": "2.1s"}, 9), []),
        ):  # fmt: skip
            found = await answers.connections(*arguments)
            self.assertEqual([row["id"] for row in found], ids)
        shown = (
            "state", "route", "server", "generation", "worker", "datagrams_in", "age_ms", "idle_ms",
        )  # fmt: skip
        self.assertEqual(
            [[row.get(name) for name in shown] for row in rows],
            [
                ["relaying", "ssh", server, 1, None, None, 2000, 1000], ["peeking", None, None, 1, None, None, 2000, 2000],
                ["relaying", None, server, 1, None, None, 2000, 2000],
            ],
        )  # fmt: skip
        for row, by, number, says in (
            (first, "route", 11, ["not asked", "unknown", "match", "not asked"]),
            (second, None, 2, ["not asked", "undecided", "undecided", "no"]),
            (third, "default", 2, ["not asked", "unknown", "no", "no"]),
        ):  # fmt: skip
            told: Any = await answers.explain_connection(row["id"])
            self.assertEqual((told["by"], told["bytes"], told["from"]), (by, number, "127.0.0.1"))
            self.assertEqual([one["says"] for one in told["routes"]], says)
            self.assertEqual(told["routes"][0]["excluded_by"], "from")
            self.assertEqual(told["routes"][3]["at"], None if by else 1)
            self.assertNotIn(b"SSH-".hex(), str(told))
        self.assertIsNone(await answers.explain_connection("none"))
        data = b"SSH-2.0-a\r\n".hex()
        for listener, client, listeners in ((None, None, "xu"), ("x", "192.0.2.1", "x"), ("u", None, "u")):  # fmt: skip
            streams = await answers.explain(data, listener, client)
            told = [[one["listener"] for one in stream["listeners"]] for stream in streams]
            self.assertEqual(told, [[one] for one in listeners])
        self.assertEqual(
            answers.recognise([(data, False), (data, True), ("00", False)]), ["match = ssh", "", ""]
        )
        names = "address", "state", "weight", "effective_weight"
        told = (
            [[one.get(name) for name in names] for one in await answers.addresses(["b"])],
            await answers.addresses(["c"]), [row[0] for row in await answers.clients()],
        )  # fmt: skip
        both = [[server, "up", 1, 1], ["127.0.0.1:1", "disabled", 3, 3]]
        self.assertEqual(told, (both, [], ["127.0.0.1"]))
        PORT_SHORTAGE.add(("b", server), "none left", "127.0.0.1")
        self.addCleanup(PORT_SHORTAGE.end, ("b", server))
        serving.unopened.append("not opened")
        everything, often = await answers.count(gauges=True), await answers.count()
        self.assertEqual({*everything}, {row.name for row in GAUGES if row.collect})
        self.assertEqual({*often}, {row.name for row in GAUGES if row.collect and row.is_frequent})
        values = {
            "generations": [1], "sources": {"x": 1}, "unread": ["not opened"], "troubled": ["b"],
            "flooded": False, "cannot_accept": [],
        }  # fmt: skip
        self.assertEqual({name: everything[name] for name in values}, values)
        self.assertEqual(
            [row[:4] for row in everything["ports"]], [("b", server, f"none left{OF_FEW}", 1)]
        )
        counted = ListenerTotals(("x",), serving.listeners[0].configuration.counts.cells)
        self.assertEqual((counted.bytes_in, counted.bytes_out), (13, 6))
        for ending, count in (
            (answers.close({"listener": "y"}), 0), (answers.close({}, "none"), 0), (answers.close_server("b", "127.0.0.1:1"), 0),
            (answers.close_server("c", server), 0), (answers.close({}, third["id"]), 1), (answers.close_server("b", server), 1),
            (answers.close({"state": "peeking"}), 1),
        ):  # fmt: skip
            self.assertEqual(await ensureDeferred(ending), count)
        for one in clients:
            await one.is_lost()
        kinds = sorted(event["event"] for event in events)
        self.assertEqual(kinds, [*["begin"] * 3, *["decide"] * 2, *["end"] * 3])
