import os
import signal
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.support.changes import change_constants
from tests.support.kit import SupervisedTestCase, connect, halted, reactor
from tests.support.supervised import channel_of
from txmux.access.dynamic_networks import dynamic_networks_of, pack
from txmux.control import connections
from txmux.control.broadcast import ANSWER_TIMEOUT
from txmux.control.connections import end_connections, find_connection, list_connections
from txmux.control.filters import EVERY, Filters, Page
from txmux.control.steering import set_server
from txmux.rules.model import NetworkSet


class WorkersTest(SupervisedTestCase):
    workers = 2

    async def test_list_pages_and_end_over_all_workers(self) -> None:
        clients = await self.live.spread(await self.live.begin())
        whole = [row["id"] for row in await self.live.listed(len(clients))]
        paged: list[str] = []
        control, first = self.running.control, Page(3, "")
        while page := await list_connections(control, EVERY, first):
            paged += [row["id"] for row in page]
            first = Page(3, paged[-1])
        self.assertEqual((paged, len(set(whole))), (whole, len(clients)))
        change_constants(self, connections, _ROWS_AT_ONCE=1)
        self.assertEqual([row["id"] for row in await list_connections(control)], whole)
        (row,) = await find_connection(self.running.control, whole[-1])
        self.assertEqual(row["id"], whole[-1])
        rows = await self.live.listed(len(clients))  # close in any worker
        self.assertEqual((await end_connections(self.running.control, EVERY, rows[-1]["id"]))[0], 1)
        await self.live.listed(len(clients) - 1)
        count, _ = await end_connections(self.running.control, Filters.read({"backend": "b"}))
        self.assertEqual(count, len(clients) - 1)
        for client in clients:
            await client.is_lost()
        while (lines := self.log.read_text().count("reason=killed")) < len(clients):
            await deferLater(reactor, 0.01)
        self.assertEqual(lines, len(clients))

    async def test_list_of_networks_changes_in_all_workers(self) -> None:
        (self.folder / "list.txt").write_text("192.0.2.1\n")
        port = await self.live.begin("deny = @list.txt\nend_denied = yes\n")
        clients = await self.live.spread(port)
        (name,) = {one.name for one in dynamic_networks_of(self.running.control.rules)}
        self.running.control.feed({name: pack(NetworkSet([ip_network("127.0.0.0/8")]))})
        for client in clients:
            await client.until(lambda client=client: client.finished)  # type: ignore[misc]
        await self.live.listed(0)
        await self.killed(*self.supervisor.pool.workers)
        for _ in range(4):
            client = await connect(self, port)
            await client.until(lambda client=client: client.finished)  # type: ignore[misc]

    async def test_ended_worker_is_not_listed_while_stopping(self) -> None:
        client = await self.live.client(await self.live.begin(settings="drain_timeout = 10m\n"))
        (row,) = await self.live.listed(1, state="relaying")
        stopping = self.running.stopService()
        seen = list[Mapping[str, Any]]()
        while len(workers := (await self.running.control.status())["workers"]) > 1:
            seen += workers  # the other one may have ended before the first look
        self.assertEqual([worker for worker in seen if not worker["ready"]], [])
        self.assertEqual([worker["worker"] for worker in workers], [row["worker"]])
        self.assertEqual(workers[0]["active"], 1)
        client.reset()
        await stopping

    async def test_crashed_worker(self) -> None:
        """Its connections are gone, and while the next one starts, that one has none to end."""
        clients = await self.live.spread(await self.live.begin())
        rows = await self.live.listed(len(clients))
        left = [row["id"] for row in rows if row["worker"] == 1]
        pool, lacking, none = self.supervisor.pool, set[str](), Filters.read({"backend": "none"})
        with capturedLogs():
            os.kill(pool.workers[1].pid, signal.SIGKILL)
            await self.until(lambda: not pool.are_ready())
            while not pool.are_ready():
                lacking.update((await end_connections(self.running.control, none))[1])
        self.assertEqual(lacking, set())
        self.assertEqual([row["id"] for row in await self.live.listed(len(left))], left)

    async def test_later_worker_has_the_same_version(self) -> None:
        port = await self.live.begin()
        self.write(self.live.text() + "[route http]\nmatch = http\nbackend = b\n")
        self.assertTrue((await self.running.reload()).ok)
        with capturedLogs():
            await self.killed(self.supervisor.pool.workers[1])
        await self.live.spread(port)
        rows = await list_connections(self.running.control)
        self.assertEqual({(row["worker"], row["generation"]) for row in rows}, {(1, 2), (2, 2)})


class LateWorkersTest(SupervisedTestCase):
    workers = 2
    patience = ANSWER_TIMEOUT

    async def test_late_worker_gets_changes_but_no_more_questions(self) -> None:
        await self.live.spread(await self.live.begin())
        control, worker = self.running.control, self.supervisor.pool.workers[1]
        channel = channel_of(worker)
        server, sent = f"127.0.0.1:{self.live.server}", []

        def send(kind: str, values: dict[str, Any]) -> None:
            sent.append(kind)
            write(kind, values)

        write = channel._send
        with halted([worker.pid]):
            while not worker.is_late:  # what it sent before may be read first
                missing = (await control.backends()).missing
            self.assertEqual(missing, ["worker 2: no answer to 'addresses' in 2 s"])
            self.patch(channel, "_send", send)
            await control.status()
            self.assertEqual((await control.backends()).missing, ["worker 2: does not answer"])
            report = await set_server(control, "b", server, state="drain")
            self.assertIn("; not yet: worker 2: does not answer", report.changes)
            _, late = await end_connections(control, EVERY)
            self.assertEqual(late, ["worker 2: does not answer"])
        self.assertEqual([kind for kind in sent if kind != "ping"], ["apply_overrides", "close"])
        await self.until(lambda: not worker.is_late)
        answers = await control.addresses()
        states = [(number, row["state"]) for number, rows in answers for row in rows]
        self.assertEqual(sorted(states), [(1, "drain"), (2, "drain")])
        await self.live.listed(0)
