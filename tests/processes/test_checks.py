"""Checks of servers, which one process makes for all workers."""

import os
import signal
import socket
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from tests.support.kit import SupervisedTestCase, VirtualTime, free_port
from tests.support.peers import PeerFactory, listen, reactor
from txmux.backends.pool.server_health import MemberState
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.processes.supervisor.worker import Worker


class KnownTest(SupervisedTestCase):
    """What workers are told of checks: nothing while nothing changes, and each knows the state of every server."""

    def rules(self, settings: str = "", interval: str = "1s") -> str:
        servers = "\n    ".join(self.at)
        return (
            f"[txmux]\nworkers = 2\n[listen public]\nendpoint = 127.0.0.1:0\n[route all]\nmatch = any\n"
            f"backend = pool\n[backend pool]\nserver = {servers}\ncheck = tcp interval={interval} fall=1 rise=1\n{settings}"
        )

    async def pass_seconds(self, seconds: int) -> None:
        for _ in range(10 * seconds):
            self.time.advance(0.1)
            await deferLater(reactor, 0.002)

    def send(self, message: Message, **values: Any) -> None:
        self.sent += message is messages.CHECK
        self.send_to_all(message, **values)

    async def assert_known(self, *states: str) -> None:
        workers = self.supervisor.pool.workers
        reports = [await worker.ask(messages.SERVERS) for worker in workers]
        for process in (self.supervisor.state.upstreams.as_json(), *reports):
            self.assertEqual([server["state"] for server in process], [*states])

    async def test_known(self) -> None:
        self.time, self.sent = VirtualTime(), 0
        up = PeerFactory()
        named = len({row[4][0] for row in socket.getaddrinfo("localhost", None)})  # one, or two
        self.at = [f"127.0.0.1:{listen(self, up)}", f"localhost:{(gone := free_port())}"]
        await self.run_service(self.rules(), use=self.time)
        self.send_to_all = self.supervisor.pool.send_to_all
        self.supervisor.pool.send_to_all = self.send  # type: ignore[method-assign]
        with capturedLogs() as events:
            await self.pass_seconds(3)
            await self.assert_known("up", *["down"] * named)
            self.assertEqual(self.sent, 1 + named)
            await self.pass_seconds(10)
        # Once an interval, however many workers there are
        self.assertIn(len(up.peers), range(11, 15))
        self.assertEqual(self.sent, 1 + named)
        told = [text for text in map(str, map(formatEvent, events)) if " is down: " in text]
        self.assertEqual(len(told), named)
        self.assertRegex("\n".join(told), rf"127\.0\.0\.1:{gone}\b.* is down: .*connection refused")
        status = await self.running.control.status()
        self.assertIn("1 of 2 servers is down", str(status["attention"]))
        # At last without further checks, whose results would be others than those below.
        for rules in (self.rules(), self.rules("retries = 7"), self.rules(interval="1h")):
            self.write(rules)
            await self.running.reload()
            await self.assert_known("up", *["down"] * named)
        await self.pass_seconds(3)  # the first of these, and the next one is an hour away
        # A change while a worker starts, after its start message.
        supervisor, (first, _) = self.supervisor, self.supervisor.pool.workers
        start_message = supervisor.start_message

        def start(worker: Worker) -> dict[str, Any]:
            reactor.callLater(0, change)
            return start_message(worker)

        def change() -> None:
            for upstream in supervisor.state.upstreams.all():
                for member in upstream.pool.members:
                    ok = member.state is not MemberState.UP
                    supervisor.state.upstreams._take_result(
                        upstream, member, ok=ok, why="refused", is_first=False
                    )

        supervisor.start_message = start  # type: ignore[method-assign]
        os.kill(first.pid, signal.SIGKILL)
        for is_ready in (False, True):
            while first.ready is not is_ready:
                self.time.advance(0.01)  # as little as it takes, or the worker would be late
                await deferLater(reactor, 0.01)
        await self.assert_known("down", *["up"] * named)
