import gzip
import json
from pathlib import Path
from typing import Any
from unittest import SkipTest

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol

from tests.support.mux import VirtualTime
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from tests.support.supervised import SupervisedTestCase, greeted, resources_of
from txmux.processes.worker import landlock

LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"
JSON = {"Content-Type": "application/json"}
GZIP = {"Accept-Encoding": "gzip"}
Headers = dict[str, str] | None
Where = Path | int | None
TOKEN = "the-secret-of-this-test"


@attrs.frozen
class Told:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, received: bytes) -> "Told":
        """Read an answer, and see to it that nothing comes after it."""
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        if "content-length" in headers and int(headers["content-length"]) != len(body):
            raise AssertionError(
                f"{headers['content-length']} bytes are told of, and came: {body!r}"
            )
        return cls(int(first.split()[1]), headers, body)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


def request(method: str, path: str, headers: Headers = None, body: bytes | str = b"") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    has = {"Host": "localhost", "Connection": "close", **(headers or {})}
    if content:
        has.setdefault("Content-Length", str(len(content)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in has.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


class AdminCase(SupervisedTestCase):
    """Runs a service with an endpoint for `admin`, a UNIX socket unless its settings say otherwise.

    Attributes:
        socket: The path of that one.
        port: Of its first listener that is a plain socket, once it runs.
    """

    port: int
    backend: Any
    server: Any

    def setUp(self) -> None:
        super().setUp()
        self.socket = self.folder / "admin.sock"

    def text(self, settings: str = "", rules: str = LISTEN) -> str:
        if "admin =" not in settings:
            settings += f"\nadmin = unix:{self.socket}"
        if "access_log =" not in settings:
            settings += "\naccess_log = off"
        return f"[txmux]\ndrain_timeout = 0s\n{settings}\n{rules}"

    async def start(
        self, settings: str = "", rules: str = LISTEN, *, use: Any = reactor, **options: Any
    ) -> None:
        ports = await self.run_service(self.text(settings, rules), use=use, **options)
        self.port = ports[0] if ports else 0

    async def route_ssh(self) -> None:
        """Run a service that routes SSH to `backend`, whose server has the name `server`."""
        self.backend = PeerFactory()
        self.server = f"127.0.0.1:{listen(self, self.backend)}"
        await self.start(
            rules=f"{LISTEN}[route ssh]\nmatch = ssh\nbackend = b\n[backend b]\nserver = {self.server}\n"
        )

    async def clients(self, count: int) -> list[Peer]:
        clients = []
        for number in range(count):
            clients.append(await greeted(self, self.port))
            await (await self.backend.peer(number)).has(11)
        return clients

    def write_rules(self, settings: str = "", rules: str = LISTEN) -> None:
        self.write(self.text(settings, rules))

    def virtual(self) -> VirtualTime:
        clock = VirtualTime()
        self.addCleanup(clock.advance, 0)  # when it has stopped, its ports close in their turn
        return clock

    @property
    def endpoints(self) -> Any:
        return resources_of(self.running).endpoints

    def port_of(self, setting: str) -> int:
        settings = self.endpoints.settings.items()
        key = next(key for key, one in settings if one == setting)
        return int(self.endpoints.store.sockets()[key].getsockname()[1])

    async def connect(self, to: Where = None) -> Peer:
        to = to or self.socket
        endpoint: Any = (
            TCP4ClientEndpoint(reactor, "127.0.0.1", to)
            if isinstance(to, int)
            else UNIXClientEndpoint(reactor, str(to))
        )
        peer: Peer = await connectProtocol(endpoint, Peer())

        async def gone() -> None:
            if peer.lost is None:
                peer.reset()
                await peer.is_lost()

        self.addCleanup(lambda: Deferred.fromCoroutine(gone()))
        return peer

    async def connect_until_lost(self, said: bytes, source: str = "") -> None:
        """Have a client of the first listener say something, until its connection is closed."""
        client = await connect(self, self.port, source=source)
        client.send(said)
        await client.is_lost()

    async def send(self, data: bytes, to: Where = None) -> Told:
        peer = await self.connect(to)
        peer.send(data)
        await peer.is_lost()
        return Told.of(bytes(peer.received))

    async def ask(
        self, method: str, path: str, headers: Headers = None, body: Any = b"", *, to: Where = None
    ) -> Told:
        return await self.send(request(method, path, headers, body), to)

    async def get(self, path: str, **headers: str) -> Told:
        return await self.ask("GET", path, headers)

    async def post(self, path: str, body: object = None) -> Told:
        return await self.ask("POST", path, JSON, b"" if body is None else json.dumps(body))

    async def assert_sent_by_gzip(self, *paths: str) -> None:
        await self.start(rules=LISTEN + "# a long line\n" * 20_000)
        for path in paths:
            plain, packed = await self.ask("GET", path), await self.ask("GET", path, GZIP)
            self.assertNotIn("content-encoding", plain.headers)
            self.assertEqual(packed.headers["content-encoding"], "gzip")
            self.assertEqual(packed.headers["vary"], plain.headers["vary"], "Accept-Encoding")
            self.assertEqual(packed.headers["content-type"], plain.headers["content-type"])
            self.assertLess(len(packed.body), len(plain.body) / 2)
            if path not in {"/", "/metrics"}:  # which have times
                self.assertEqual(gzip.decompress(packed.body), plain.body)

    async def assert_installed(self, path: str) -> None:
        """Check that there is the answer, or how to get it."""
        told = await self.get(path)
        if told.status != 200:
            self.assertEqual(told.status, 501)
            self.assertIn("pip install 'txmux[admin]'", told.error)

    async def start_with_token(self) -> None:
        """Serve `admin` by TCP, for who has `TOKEN`."""
        self.token = self.folder / "token"
        self.token.write_text(f"{TOKEN}\n")
        await self.start(f"admin = 127.0.0.1:0\nadmin_token = {self.token}")
        self.port = self.port_of("admin")

    async def document(self, path: str, headers: dict[str, str]) -> Any:
        return json.loads((await self.ask("GET", path, headers, to=self.port)).body)

    async def status_at(self, path: str = "/api/status", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await self.ask("GET", path, named, to=self.port)).status

    async def confined(self, settings: str = "workers = 2", rules: str = LISTEN) -> list[bool]:
        if not landlock.abi():
            raise SkipTest("this kernel has no Landlock")
        await self.start(settings, rules)
        return await self.sandboxes()

    async def sandboxes(self) -> list[bool]:
        return [worker["sandbox"] for worker in (await self.get("/api/status")).json["workers"]]
