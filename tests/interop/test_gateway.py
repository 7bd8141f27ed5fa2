"""The provider for Gateway API beside a service, as two programs: clients stay, whatever happens to the cluster."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.admin.processes import get
from tests.features.gateway.objects import SERVICES, gateway, route, things
from tests.support.kit import Child, Peer, free_port, make_folder, reactor
from tests.support.kubernetes import KubernetesPlayed

_LISTENERS = ("name: tcp, port: 5432, protocol: TCP", "name: other, port: 2, protocol: TCP")


class Named(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.factory.name * len(data))  # type: ignore[union-attr]


class ClusterTest(TestCase):
    def setUp(self) -> None:
        folder = make_folder(self)
        rules = folder / "rules.ini"
        self.admin = folder / "txmux.sock"
        settings = f"include = providers/*.ini\nadmin = unix:{self.admin}\naccess_log = off\n"
        rules.write_text(f"[txmux]\n{settings}")
        self.kube = KubernetesPlayed(self)
        self.port, self.other = free_port(), free_port()
        first = route("TCPRoute", "db", parent=", sectionName: tcp")
        self.put(SERVICES + gateway(*_LISTENERS) + first)
        self.server_port = free_port()
        for name in "ab":
            factory = ServerFactory.forProtocol(Named)
            factory.name = name.encode()  # type: ignore[attr-defined]
            listening = reactor.listenTCP(self.server_port, factory, 1000, _host(name))
            self.addCleanup(listening.stopListening)
        self.put_pods("a")
        self.service = Child("txmux", "run", rules)
        self.addCleanup(self.service.end)
        self.file = folder / "providers/gateway.ini"
        ports = f"--port=5432={self.port}", f"--port=2={self.other}"
        options = f"--write={self.file}", f"--rules={rules}", f"--api={self.kube.url}", *ports
        self.provider = Child("txmux", "provider", "gateway", *options)
        self.addCleanup(self.provider.end)

    def put(self, text: str) -> None:
        for one in things(text):
            self.kube.put(one)

    def put_pods(self, ready: str, ending: str = "") -> None:
        its = self.kube.get("EndpointSlice", "shop", "db-1")
        endpoints = []
        for name in ready + ending:
            told = {"ready": name in ready, "serving": True, "terminating": name in ending}
            endpoints.append({"addresses": [_host(name)], "conditions": told})
        own = {"ports": [{"name": "sql", "port": self.server_port}], "endpoints": endpoints}
        self.kube.put({**its, "metadata": dict(its["metadata"]), **own})

    async def answer(self, port: int) -> bytes:
        """Return the name of the server that a new client gets; empty if it gets none."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        try:
            peer: Peer = await connectProtocol(endpoint, Peer())
        except ConnectError:
            return b""
        peer.transport.write(b"?")
        await peer.until(lambda: bool(peer.received) or peer.finished)
        if not peer.finished:
            peer.transport.loseWriteConnection()
            await peer.until(lambda: peer.finished)
        return bytes(peer.received)

    async def answered_by(self, name: bytes, port: int) -> None:
        """Wait until clients get this server alone; they take turns among several."""
        while {await self.answer(port) for _ in range(4)} != {name}:
            await deferLater(reactor, 0.05)

    async def sources(self, are_so: Callable[[list[Any]], bool]) -> list[Any]:
        """Return what the service says of the provider once that is so."""
        while True:
            status = await deferToThread(get, self.admin, "/api/status")
            if are_so(status["sources"]):
                return [*status["sources"]]
            await deferLater(reactor, 0.1)

    async def test_no_client_is_cut(self) -> None:
        """Meanwhile the service says whether the API answers its provider."""
        await self.answered_by(b"a", self.port)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port, timeout=60)
        connecting = [connectProtocol(endpoint, Peer()) for _ in range(500)]
        clients: list[Any] = await gatherResults(connecting)

        async def leave() -> None:
            for client in clients:
                client.transport.abortConnection()
                await client.until(lambda client=client: client.finished)

        self.addCleanup(leave)

        async def all_answer(count: int) -> None:
            for client in clients:
                client.transport.write(b"?")
            for its in clients:
                await its.until(lambda its=its: len(its.received) == count or its.finished)
            self.assertEqual({bytes(client.received) for client in clients}, {b"a" * count})

        await all_answer(1)
        for number in range(10):  # endpoints that flap, and routes that come and go
            self.put_pods("a" if number % 2 else "ab")
            self.put(route("TCPRoute", f"r{number}", parent=", sectionName: other"))
            await deferLater(reactor, 0.1)
        await self.answered_by(b"a", self.other)
        for number in range(10):
            self.kube.remove("TCPRoute", "shop", f"r{number}")
        await self.answered_by(b"", self.other)
        self.put_pods("b", ending="a")
        await self.answered_by(b"b", self.port)
        await all_answer(2)
        await self.kube.leave()
        while "stays as it is" not in self.provider.output:
            await deferLater(reactor, 0.05)
        (row,) = await self.sources(lambda rows: not rows[0]["up"])
        self.assertIn(f"the API at {self.kube.url}: ", row["why"])
        self.assertEqual(await self.answer(self.port), b"b")
        await all_answer(3)
        self.kube.listen()
        self.put_pods("b")
        self.put(route("TCPRoute", "late", parent=", sectionName: other"))
        await self.answered_by(b"b", self.other)
        await all_answer(4)
        (row,) = await self.sources(lambda rows: rows[0]["up"])
        self.assertEqual(row, {"source": f"provider {self.file}", "up": True, "age": 0, "why": ""})
        self.provider.process.kill()
        await self.sources(lambda rows: not rows)
        self.assertEqual(self.service.output.count(f"{row['source']}: good again"), 1)
        for word in ("critical", "Traceback", "Unhandled"):
            self.assertNotIn(word, self.provider.output + self.service.output)


def _host(name: str) -> str:
    return f"127.0.0.{ord(name) - 90}"
