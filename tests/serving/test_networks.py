"""Networks that change while the service runs, and what becomes of those who may not come in any more."""

import os
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.support.kit import PeerFactory, Talker, connect, listen, reactor
from tests.support.proc import open_files
from tests.support.supervised import SupervisedTestCase, is_let_in

LISTEN = "[txmux]\naccess_log = LOG\n%s[listen x]\nendpoint = 127.0.0.1:0\n"


class ServedNetworks:
    """A service whose supervisor has a time that the test moves, with a server behind it."""

    def __init__(self, test: SupervisedTestCase) -> None:
        self._test = test
        self.server = PeerFactory()
        self.route = f"[route r]\nunder = *\nmatch = any\n%sbackend = 127.0.0.1:{listen(test, self.server)}\n"
        self.list = test.folder / "list.txt"

    async def begin(self, listener: str = "", route: str = "", settings: str = "") -> int:
        text = LISTEN % settings + listener + self.route % route
        return (await self._test.run_service(text, use=self._test.time))[0]

    def write_list(self, text: str) -> None:
        new = self._test.folder / "list.new"
        new.write_text(text)
        new.rename(self.list)

    async def after(self, seconds: float, condition: Callable[[], bool]) -> None:
        """Let time pass, at most so much, until something is so.

        What the reactor does takes none of it, however busy the machine is; how long that may take, the test's own time-out says.
        """
        for _ in range(int(seconds * 10)):
            self._test.time.advance(0.1)
            await self._test.running.control.missing()  # the worker has answered what it was asked
            # Who is asked over a network may be slower than a worker, and would seem to have taken seconds.
            watched = self._test.running.control.lists.watched
            while any(one.polling.call is None for one in watched.values()):
                await deferLater(reactor, 0)
            if condition():
                break
        while not condition():
            await deferLater(reactor, 0)
        await self._test.running.control.missing()  # what it was told before this is in force there

    async def is_let_in(self, port: int) -> bool:
        return await is_let_in(self._test, port, self.server)

    def denies(self) -> bool:
        clients = self._test.running.control.rules.listeners[0].clients
        return not clients.serves(ip_address("127.0.0.1"))


class NetworksTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.networks = ServedNetworks(self)

    async def test_change(self) -> None:
        """Within ten seconds after a list has changed, it counts; other lists, and connections, are not touched. No look leaves it open, nor comes after the end."""
        self.networks.write_list("192.0.2.1\n")
        port = await self.networks.begin("deny = @list.txt\n")
        stays = await connect(self, port)
        stays.send(b"x")
        await self.networks.server.peer()
        self.assertTrue(await self.networks.is_let_in(port))
        self.networks.write_list("127.0.0.0/8\n")
        await self.networks.after(10, self.networks.denies)
        self.assertFalse(await self.networks.is_let_in(port))
        self.networks.write_list("")
        await self.networks.after(10, lambda: not self.networks.denies())
        self.assertTrue(await self.networks.is_let_in(port))
        self.assertFalse(stays.finished)
        # Of other files, some are open for a moment, and some have been left to the garbage collector.
        path = str(self.networks.list)
        await self.until(lambda: not any(one.startswith(path) for one in open_files(os.getpid())))
        stays.reset()
        await self._stop()
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    async def test_list_counts_for_from_as_for_deny(self) -> None:
        self.networks.write_list("127.0.0.0/8\n")
        port = await self.networks.begin(route="from = @list.txt\n")
        self.assertTrue(await self.networks.is_let_in(port))
        self.networks.write_list("192.0.2.1\n")
        route = self.running.control.rules.routes[0]
        await self.networks.after(10, lambda: "192.0.2.1" in str(route.clients.allowed))
        self.assertFalse(await self.networks.is_let_in(port))

    async def test_reload(self) -> None:
        """A reload after a list has been read again changes nothing; one that is first to see a change reports it, and the list is watched on."""
        self.networks.write_list("192.0.2.1\n")
        text = LISTEN % "" + "deny = @list.txt\n" + self.networks.route % ""
        [port] = await self.run_service(text, use=self.time)
        self.networks.write_list("127.0.0.1\n")
        await self.networks.after(10, self.networks.denies)
        self.assertEqual(await self.change(text), "nothing changed")
        self.assertTrue(self.networks.denies())
        self.networks.write_list("192.0.2.2\n")
        self.assertEqual(await self.change(text), "listener x changed")
        self.assertFalse(self.networks.denies())
        self.networks.write_list("127.0.0.1\n")
        await self.networks.after(10, self.networks.denies)
        # A list that is wrong leaves all as it was, with one line in the log that says where.
        with capturedLogs() as events:
            self.networks.write_list("127.0.0.2\nnonsense\n")
            for _ in range(150):
                self.time.advance(0.1)
                await self.running.control.missing()
        told = [str(e["why"]) for e in events if "telemetry.sources" in e["log_namespace"]]
        self.assertEqual(len(told), 1)
        self.assertIn("line 2: 'nonsense' is not a network", told[0])
        self.assertFalse(await self.networks.is_let_in(port))

    # Connections of those who may not come in any more.

    async def test_connections(self) -> None:
        """Those who may not come in any more are ended, where the listener wants that; their lines say why. Others stay."""
        self.networks.write_list("192.0.2.1\n")
        server, flow = Talker.listening(self, answer=lambda data: data), Talker.listening(self)
        keys = "deny = @list.txt\nend_denied = yes\n"
        more = f"deny = @list.txt\n[listen y]\nendpoint = 127.0.0.1:0\n{keys}"
        u = f"[listen u]\nendpoint = udp:127.0.0.1:0\n{keys}"
        more += f"{u}default = udp:127.0.0.1:{server.port}\n"
        port, other, datagrams = [await self.networks.begin(more), *self.ports()[1:]]
        await flow.asks(b"one", datagrams)
        clients = [await connect(self, port), await connect(self, other)]
        for client in clients:
            client.send(b"x")
        await self.networks.server.peer(1)
        self.networks.write_list("127.0.0.9\n")
        await self.networks.after(10, lambda: "127.0.0.9" in str(self._denied()))
        self.assertEqual([client.finished for client in clients], [False, False])
        self.networks.write_list("127.0.0.1\n")
        await self.networks.after(10, lambda: clients[1].finished)
        self.assertFalse(clients[0].finished)
        await self.until_logged("reason=denied", "route=r", "listener=u")
        self.assertEqual(self.log.read_text().count("reason=denied"), 2)

    def _denied(self) -> Any:
        return self.running.control.rules.listeners[0].clients.excluded

    async def test_reload_that_denies_a_client_ends_its_connection(self) -> None:
        port = await self.networks.begin("end_denied = yes\n")
        client = await connect(self, port)
        client.send(b"x")
        await self.networks.server.peer()
        denying = LISTEN % "" + "end_denied = yes\ndeny = 127.0.0.1\n"
        await self.change(denying + self.networks.route % "")
        await self.networks.after(1, lambda: client.finished)
