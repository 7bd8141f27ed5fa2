from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.task import deferLater

from tests.support.changes import change_constants
from tests.support.kit import ServiceTestCase, for_each, make_authority, make_folder
from tests.support.peers import PeerFactory, connect, listen, reactor
from tests.support.supervised import SupervisedTestCase
from txmux.client import client_table
from txmux.client.session import ClientSession
from txmux.control.connections import end_connections, find_connection, list_connections
from txmux.control.filters import EVERY, Page, connection_sort_key
from txmux.control.worker_answers import WorkerAnswers
from txmux.net import turns
from txmux.telemetry.documents import CERTIFICATES


@contextmanager
def each_pause(do: Callable[[int], object]) -> Iterator[None]:
    """Have work pause wherever it may, and do something in each pause, by its number from 0."""
    number = -1

    async def pause(_: turns.Turns) -> None:
        nonlocal number
        number += 1
        do(number)
        await deferLater(reactor, 0)

    with patch.object(turns.Turns, "pause", pause), patch.object(turns, "_AT_ONCE", 1):
        yield


@for_each("relay", ("auto", "portable"))
class ConnectionListTest(SupervisedTestCase):
    async def test_state_bytes_and_known_fields(self) -> None:
        """Of one that is undecided, and of one that is relayed, with the bytes that were peeked at, also by its ID while it lives; then of many, by pages."""
        port = await self.live.begin()
        await self.live.client(port, b"SSH")
        while not (row := (await self.live.listed(1))[0])["bytes_in"]:
            await deferLater(reactor, 0)
        self.assertEqual((row["state"], row["route"], row["bytes_in"]), ("peeking", None, 3))
        client = await self.live.client(port)
        server = await self.live.backend.heard(11)
        client.send(b"more")
        await server.has(15)
        server.send(b"answer")
        await client.has(6)
        (row,) = await self.live.listed(1, state="relaying")
        expected = {
            "listener": "public", "local": f"127.0.0.1:{port}", "route": "ssh", "backend": "b",
            "server": f"127.0.0.1:{self.live.server}", "bytes_in": 15, "bytes_out": 6,
            "generation": 1, "worker": 1, "facts": {"software": "a"},
        }  # fmt: skip
        self.assertEqual({name: row[name] for name in expected}, expected)
        found: Any
        (found,) = await find_connection(self.running.control, row["id"])
        self.assertEqual(found.pop("explanation")["route"], "ssh")
        for name in ("age_ms", "idle_ms"):
            self.assertGreaterEqual(found.pop(name), row.pop(name))
        self.assertEqual(found, row)
        self.assertEqual(await find_connection(self.running.control, "5a9d7143-3"), [])
        # Pages, while connections come and end.
        await end_connections(self.running.control, EVERY)
        clients = [await self.live.client(port) for _ in range(5)]
        whole = [row["id"] for row in await self.live.listed(5, state="relaying")]
        first = await list_connections(self.running.control, EVERY, Page(2))
        self.assertEqual([row["id"] for row in first], whole[:2])
        await end_connections(self.running.control, EVERY, whole[1])
        await self.live.listed(4)
        clients.append(await self.live.client(port))
        await self.live.listed(5, state="relaying")
        rest = await list_connections(self.running.control, EVERY, Page(10, whole[1]))
        self.assertEqual([row["id"] for row in rest][:3], whole[2:])
        self.assertEqual(len(rest), 4)


class EndsMeanwhileTest(ServiceTestCase):
    """Whatever ends while a list is made, in whichever pause, only its own row is missing."""

    async def clients(self, count: int) -> WorkerAnswers:
        backend = PeerFactory()
        (port,) = self.run_service(
            "[txmux]\naccess_log = off\n[listen public]\nendpoint = 127.0.0.1:0\n"
            f"[route ssh]\nmatch = ssh\nbackend = b\n[backend b]\nserver = 127.0.0.1:{listen(self, backend)}\n"
        )
        assert self.running.serving is not None
        for _ in range(count):
            (await connect(self, port)).send(b"SSH-2.0-a\r\n")
        inside = WorkerAnswers(self.running.serving)
        while len(await inside.connections({"state": "relaying"}, count)) < count:
            await deferLater(reactor, 0)
        return inside

    def live(self) -> list[ClientSession]:
        assert self.running.serving is not None
        its = self.running.serving.connections()
        return sorted(its, key=lambda one: connection_sort_key(one.record.id))

    async def with_ends(
        self, make: Callable[[], Awaitable[Any]], check: Callable[[Any, list[str]], object]
    ) -> int:
        """Make an answer again and again, each time with the end of its last connection in another pause; return how often."""
        pauses, reached = 0, 0
        while reached == pauses:
            reached = 0

            def do(number: int, at: int = pauses) -> None:
                nonlocal reached
                if number == at:
                    self.live()[-1].end("killed")
                    reached = at + 1

            with each_pause(do):
                answer = await make()
            check(answer, [one.record.id for one in self.live()])
            pauses += 1
        return pauses

    async def test_list(self) -> None:
        inside = await self.clients(12)
        pauses = await self.with_ends(
            lambda: inside.connections({}, 100),
            lambda rows, ids: self.assertIn([row["id"] for row in rows][: len(ids)], [ids]),
        )
        self.assertGreater(pauses, 5)

    async def test_page_is_full(self) -> None:
        """What has ended is replaced by the next ones, since a page with less than its limit is the last one."""
        inside = await self.clients(12)

        def end_first(number: int) -> None:
            if number > len(self.live()):
                self.live()[0].end("killed")

        with each_pause(end_first):
            rows = await inside.connections({}, 4)
        self.assertEqual(len(rows), 4)

    def assert_read(self, read: Any, expected: object, answer: Any, _: object) -> None:
        self.assertEqual(read(answer), expected)

    async def test_other_answers(self) -> None:
        inside = await self.clients(15)
        change_constants(self, client_table, _OFTEN=1)
        answers: tuple[tuple[Any, Callable[[Any], object], object], ...] = (
            (inside.clients, len, 1), (inside.count, lambda answer: answer["outside"], []),
            (inside.addresses, lambda rows: [row["backend"] for row in rows], ["b"]),
        )  # fmt: skip
        for make, read, expected in answers:
            await self.with_ends(make, partial(self.assert_read, read, expected))

    async def test_closing(self) -> None:
        inside = await self.clients(8)
        none = partial(self.assert_read, int, 0)
        await self.with_ends(lambda: inside.close({"state": "peeking"}), none)
        count = len(self.live())

        def end_last(number: int) -> None:
            if number == count:
                self.live()[-1].end("killed")

        with each_pause(end_last):
            self.assertEqual(await inside.close({}), count - 1)
        self.assertEqual(self.live(), [])


class CertificateStatesTest(SupervisedTestCase):
    async def test_states(self) -> None:
        """A certificate is as valid as its chain, and is so in the list, with its colour."""
        root = make_authority()
        authority = root.authorise("between", ends=-1)
        made = [root.issue("a.example"), (last := authority.issue("a.example"))]
        folder = make_folder(self)
        paths = [its.write(folder / f"{n}.pem", key=True) for n, its in enumerate(made)]
        paths[-1].write_bytes(last.pem + last.key_pem() + authority.pem)
        await self.run_service(
            "[txmux]\naccess_log = off\n[listen public]\nendpoint = 127.0.0.1:0\n"
            f"[route site]\nmatch = tls\nterminate_tls = {', '.join(map(str, paths))}\nbackend = close\n"
        )
        listing = await self.running.control.certificates()
        states = {Path(row["file"]): row["state"] for row in listing}
        self.assertEqual([states[path] for path in paths], ["valid", "ended"])
        self.assertEqual({*map(CERTIFICATES.health, listing)}, {"up", "down"})
