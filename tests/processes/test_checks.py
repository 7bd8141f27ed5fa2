"""Checks of servers, which one process makes for all workers."""

import contextlib
import os
import signal
import socket
import threading
import time
from typing import Any

from twisted.internet.task import deferLater

from tests.interop.children import PATIENCE, eventually
from tests.processes.running import WorkersTestCase
from tests.support.mux import VirtualTime
from tests.support.peers import PeerFactory, listen, reactor
from tests.support.ports import free_port
from tests.support.proc import worker_of, workers_of
from tests.support.services import Record, Service, pool_rules
from tests.support.supervised import SupervisedTestCase
from txmux.backends.pool.server_health import MemberState
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.processes.supervisor.worker import Worker

_CHECKED = "check = tcp interval=200ms timeout=60s rise=2 fall=2\nretries = 0\neject = off"
_RULES = pool_rules("{server}", more=_CHECKED)


class Checked:
    """A server that only counts who connects to it."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with client, contextlib.suppress(OSError):
                client.settimeout(PATIENCE)
                client.recv(1)

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it may have been stopped already
            # A mere close would not wake what is blocked in accept.
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listening.close()


class ChecksTest(WorkersTestCase):
    def begin(self, server: str) -> Service:
        mux = self.start(_RULES.format(server=server), "workers = 2")
        self.addCleanup(mux.stop)
        return mux

    def checked(self, port: int) -> Checked:
        server = Checked(port)
        self.addCleanup(server.stop)
        return server

    def reasons(self, mux: Service) -> dict[str, set[str]]:
        lines: list[Record] = []
        while len({worker_of(line["id"]) for line in lines}) < 2:
            self.be_closed(mux)
            lines += mux.take()
        found: dict[str, set[str]] = {}
        for line in lines:
            found.setdefault(worker_of(line["id"]), set()).add(line["reason"])
        return found

    def all_say(self, mux: Service, reason: str) -> bool:
        return all(reasons == {reason} for reasons in self.reasons(mux).values())

    def test_one_check_an_interval(self) -> None:
        """However many workers there are, a server is asked once an interval."""
        port = free_port()
        mux = self.begin(f"127.0.0.1:{port}")
        mux.child.wait_for(rf"127\.0\.0\.1:{port} is down")  # the first checks follow sooner
        begun = time.monotonic()
        server = self.checked(port)
        eventually(lambda: server.connections >= 10, "the server is checked")
        # One may be that of somebody who looks what listens on this machine.
        self.assertGreater(time.monotonic() - begun, 8 * 0.2)

    def test_all_learn(self) -> None:
        """Each worker knows that the server is gone, and that it is back; the log says it once."""
        port = free_port()
        for server in (f"127.0.0.1:{port}", f"localhost:{port}"):
            mux = self.begin(server)
            told = rf"^.*backend pool: 127\.0\.0\.1:{port} is down: .*connection refused"
            mux.child.wait_for(told)
            eventually(lambda m=mux: self.all_say(m, "no-server"), "all know it")  # type: ignore[misc]
            checked = Checked(port)
            mux.child.wait_for(rf"backend pool: 127\.0\.0\.1:{port} is up: 2 checks succeeded")
            eventually(lambda m=mux: self.all_say(m, "done"), "all know it")  # type: ignore[misc]
            checked.stop()
            mux.child.wait_for(rf"(?s)127\.0\.0\.1:{port} is up.*127\.0\.0\.1:{port} is down")
            eventually(lambda m=mux: self.all_say(m, "no-server"), "all know it")  # type: ignore[misc]
            for state, times in (("down", 2), ("up", 1)):
                self.assertEqual(mux.child.output.count(f"127.0.0.1:{port} is {state}:"), times)

    def test_restarted_worker(self) -> None:
        """A worker that is started later knows at once what is down, be it an address or a name."""
        port = free_port()
        for server in (f"127.0.0.1:{port}", f"localhost:{port}"):
            # Whoever does not know it is not told soon, and would lead a client there.
            text = _RULES.replace("interval=200ms", "interval=1h").replace("fall=2", "fall=1")
            mux = self.start(text.format(server=server), "workers = 2")
            self.addCleanup(mux.stop)
            mux.child.wait_for(rf"127\.0\.0\.1:{port} is down")
            eventually(lambda m=mux: self.all_say(m, "no-server"), "all know it")  # type: ignore[misc]
            mux.kill(workers_of(mux.child.pid)[0])
            self.assertTrue(self.all_say(mux, "no-server"))


class KnownTest(SupervisedTestCase):
    """What workers are told of checks: nothing while nothing changes, and each knows the state of every server."""

    def rules(self, settings: str = "", interval: str = "1s") -> str:
        servers = "\n    ".join(f"127.0.0.1:{port}" for port in self.at)
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
        self.at = [listen(self, up), free_port()]
        await self.run_service(self.rules(), use=self.time)
        self.send_to_all = self.supervisor.pool.send_to_all
        self.supervisor.pool.send_to_all = self.send  # type: ignore[method-assign]
        await self.pass_seconds(3)
        await self.assert_known("up", "down")
        self.assertEqual(self.sent, 2)
        await self.pass_seconds(10)
        self.assertGreater(len(up.peers), 10)
        self.assertEqual(self.sent, 2)
        # At last without further checks, whose results would be others than those below.
        for rules in (self.rules(), self.rules("retries = 7"), self.rules(interval="1h")):
            self.write(rules)
            await self.running.reload()
            await self.assert_known("up", "down")
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
        await self.assert_known("down", "up")
