"""A worker that an intruder has taken over asks what opens files for workers, or sends its supervisor what is no message."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.net.channel.test_channel import open_files
from tests.support.installed import as_installed
from tests.support.kit import PATIENCE, eventually, make_folder, reactor
from tests.support.supervised import SupervisedTestCase, sockets_of
from txmux import load
from txmux.processes.opener import Opener
from txmux.processes.opening_server import OpeningServer
from txmux.processes.supervisor.privilege import open_for_worker
from txmux.processes.supervisor.starter import Starter
from txmux.processes.worker.sandbox import Sandbox

_RULES = as_installed("""
[txmux]
access_log   = {folder}/log
admin        = 127.0.0.1:0
admin_token  = {folder}/admin.token
crowdsec_key = {folder}/crowdsec.key
geo_databases = {folder}/places.mmdb
[listen public]
endpoint = 127.0.0.1:0
    unix:{folder}/public.sock
deny = crowdsec:http://127.0.0.1:1
[route secure]
match = tls
terminate_tls = {folder}/key.pem
""")
_WORDS = ("bind", "rules", "commit", "another", "name", "remove", "start", "status", "list", "", 1)
_VALUES: tuple[dict[str, Any], ...] = (
    {},
    {"may_all": True},
    {"listener": "public", "text": "127.0.0.1:0"},
    {"pid": 1, "remove": True},
    {"path": "/etc/passwd"},
    {"path": "/etc/passwd", "write": False, "may_all": True},
)
_NONSENSE = (
    *(b"\0", b"nonsense", b"1", b'"x"', b"[]", b"null", b"\xff", b"NaN"),
    *(b"[" * 50_000, b'{"kind":' * 10_000, b"9" * 60_000),
    b'{"kind": "open", "write": false, "path": "%s"}' % (b"x" * 100_000),
)
_LONG_NUMBER = b'{"number": "%s"}' % ("\N{EURO SIGN}" * 20_000).encode()
"""It comes back with the answer, where it takes twice the bytes."""


class HostileTest(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        for name in ("places.mmdb", "key.pem", "admin.token", "crowdsec.key", "other.pem"):
            (self.folder / name).write_text(name)
        (self.folder / "link.pem").symlink_to("places.mmdb")
        (self.folder / "loop").symlink_to(".")
        self.rules = self.folder / "rules.ini"
        self.rules.write_text(_RULES.format(folder=self.folder))

    def attack(self, connect: Callable[[], socket.socket], count: Callable[[], int]) -> None:
        """Try everything, and see that it gains nothing, and that others are served as before.

        Args:
            connect: Gives what leads a worker to what opens files.
            count: Tells how many descriptors that has open.
        """
        before = count()
        for packet in _NONSENSE:
            with connect() as other:
                self.send(other, packet)
                self.assertEqual(other.recv(100), b"", packet[:30])
            self.assert_serves(connect)
        with connect() as other:
            for word in _WORDS:
                for values in _VALUES:
                    self.assert_refused(other, {"kind": word, **values}, "refused")
            for question in self.questions():
                self.assert_refused(other, {"kind": "open", **question}, "refused", "errno")
            self.assertIn(b"refused", self.ask(other, _LONG_NUMBER)[0])
            # Whatever comes with a question is closed; its answer has only what was asked for.
            with (self.folder / "other.pem").open() as file:
                path = str(self.folder / "places.mmdb")
                wanted = json.dumps({"kind": "open", "path": path, "write": False}).encode()
                for more in (1, 2, 100):
                    _, received = self.ask(other, wanted, [file.fileno()] * more)
                    self.assertEqual([os.read(one, 100) for one in received], [b"places.mmdb"])
                    for one in received:
                        os.close(one)
        # One hears nothing of what it is answered.
        with connect() as other, contextlib.suppress(ConnectionError):
            while True:
                other.send(wanted)
        self.assert_serves(connect)
        # What was being closed when it began is gone, too.
        eventually(lambda: count() <= before, "all descriptors are closed")
        self.assertEqual((self.folder / "places.mmdb").read_text(), "places.mmdb")
        self.assertEqual((self.folder / "log").read_text(), "")

    def questions(self) -> list[dict[str, Any]]:
        folder = self.folder
        key, log = str(folder / "places.mmdb"), str(folder / "log")
        inside = ["admin.token", "crowdsec.key", "key.pem", "other.pem", "link.pem"]
        inside += ["loop/places.mmdb", "./places.mmdb", "places.mmdb/", "places.mmdb\0"]
        beside = ("places.mmdb", "", "/", "/etc/shadow", "/proc/self/mem", log)
        odd: tuple[Any, ...] = (None, 0, True, [key], {key: key}, "\ud800")
        paths: list[Any] = [f"{folder}/{name}" for name in inside]
        paths += [*beside, f"/proc/self/root{key}", *odd]
        written = (key, str(folder / "new"), f"{log}/x", [log])
        return [
            *({"path": path, "write": False} for path in paths),
            *({"path": path, "write": True} for path in written),
            {"path": key},
            {"path": key, "write": False, "flags": os.O_RDWR},
        ]

    def send(self, other: socket.socket, packet: bytes, files: Sequence[int] = ()) -> None:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        socket.send_fds(other, [packet], files)

    def ask(
        self, other: socket.socket, packet: bytes, files: Sequence[int] = ()
    ) -> tuple[bytes, list[int]]:
        self.send(other, packet, files)
        answer, received, _, _ = socket.recv_fds(other, 65536, 10)
        return answer, received

    def assert_refused(self, other: socket.socket, question: object, *how: str) -> None:
        answer, received = self.ask(other, json.dumps(question).encode())
        self.assertEqual(received, [], question)
        self.assertTrue(json.loads(answer or b"{}").keys() & {*how}, (question, answer))

    def assert_serves(self, connect: Callable[[], socket.socket]) -> None:
        opener = Opener(connect())
        for name, flags in (("places.mmdb", os.O_RDONLY), ("log", os.O_WRONLY | os.O_APPEND)):
            os.close(opener.open_file(self.folder / name, flags))
        opener.close()

    def test_helper(self) -> None:
        """The helper refuses what is not for workers, overlooks nonsense, and goes on for all others."""
        opener = self.enterContext(contextlib.closing(Opener.start(self.rules)))
        opener.read_rules()
        opener.commit()
        process = opener.process
        assert process is not None
        descriptors = Path(f"/proc/{process.pid}/fd")

        self.attack(opener.another, lambda: len([*descriptors.iterdir()]))
        self.assertIn(str(self.rules), opener.read_rules().files.texts)

    async def test_supervisor_without_a_helper_refuses_the_same(self) -> None:
        helper = OpeningServer(self.rules, is_privileged=False)
        helper.prepare(load(self.rules))
        helper.commit()

        def connect() -> socket.socket:
            end = open_for_worker(reactor, helper)
            end.settimeout(PATIENCE)
            return end

        await deferToThread(
            self.attack,
            lambda: blockingCallFromThread(reactor, connect),
            lambda: len([*Path("/proc/self/fd").iterdir()]),
        )


class ChannelTest(SupervisedTestCase):
    async def send(self, end: socket.socket, data: bytes) -> int:
        """Send as much as the supervisor takes before it closes the channel, and give how much that was."""
        left = memoryview(data)

        def is_sent() -> bool:
            nonlocal left
            with contextlib.suppress(ConnectionError):
                try:
                    left = left[end.send(left) :]
                except BlockingIOError:
                    return False
                return not left
            return True

        await self.until(is_sent)
        return len(data) - len(left)

    async def begin_watched(self) -> tuple[list[int], socket.socket]:
        """Start the workers; give their processes, and a duplicate of the first one's end of its channel."""
        ends: list[socket.socket] = []
        fork = Starter.fork

        def watched(starter: Starter, number: int, channel: int, sandbox: Sandbox) -> Deferred[int]:
            ends.append(socket.socket(fileno=os.dup(channel)))
            return fork(starter, number, channel, sandbox)

        with patch.object(Starter, "fork", watched):
            pids = await self.run_two()
        ends[1].close()
        self.addCleanup(ends[0].close)
        return pids, ends[0]

    async def test_nonsense_and_shut_sockets_harm_nobody(self) -> None:
        # Levels and backends that there are not; whatever a worker says, nothing fails, and nothing is kept.
        _, end = await self.begin_watched()
        values = [
            *({"kind": "log", "level": level, "text": "x"} for level in ("nonsense", "")),
            *({"kind": "waiting", "backend": str(n), "waiting": True} for n in range(10)),
            {"kind": "event", "event": {}},
            {"kind": "log", "level": "info", "text": "the last one"},
        ]
        with capturedLogs() as events:
            await self.send(end, b"".join(json.dumps(one).encode() + b"\n" for one in values))
            await self.until(lambda: any("the last one" in str(event) for event in events))
        self.assertFalse([event for event in events if "log_failure" in event])
        self.assertFalse(self.supervisor.state.upstreams.server_starter._waiting)
        # All workers accept from one socket, so one can shut it down for all; it listens again a second later.
        (opened,) = sockets_of(self.running)
        opened.shutdown(socket.SHUT_RDWR)
        with capturedLogs() as events:
            await self.pass_by(1, *self.supervisor.pool.workers)
        self.assertIn("for [listen x] again", "".join(map(str, map(formatEvent, events))))
        with socket.create_connection(opened.getsockname()) as client:
            client.sendall(b"x")
            self.assertEqual(await deferToThread(client.recv, 1), b"")
        # So can a worker itself; it is tried again, and workers are watched as before.
        (opened,) = sockets_of(self.running)
        address = opened.getsockname()
        opened.shutdown(socket.SHUT_RDWR)
        opened.bind(address)
        with capturedLogs() as events:
            with socket.create_server(address):
                await self.pass_by(3, *self.supervisor.pool.workers)
            await self.pass_by(1, *self.supervisor.pool.workers)
        told = "".join(map(str, map(formatEvent, events)))
        self.assertEqual((told.count("trying again"), told.count("for [listen x] again")), (1, 1))
        socket.create_connection(address).close()

    async def test_unix_socket_shut_down(self) -> None:
        """It listens no more, whatever is done with it, so another one is opened at the same path."""
        path = make_folder(self) / "x.sock"
        rules = f"[txmux]\nworkers = 2\n[listen x]\nendpoint = unix:{path}\n"
        await self.run_service(rules, use=self.time)
        (opened,) = sockets_of(self.running)
        opened.shutdown(socket.SHUT_RDWR)
        with capturedLogs() as events:
            await self.pass_by(1, *self.supervisor.pool.workers)
            await self.until(lambda: not self.supervisor.catching_up)
            await self.pass_by(1, *self.supervisor.pool.workers)
        told = "".join(map(str, map(formatEvent, events)))
        self.assertEqual(told.count("for [listen x] again"), 1)
        for _ in range(2):  # and again before the workers have got the next one
            self.shut_down()
        commit = self.supervisor._commit

        def shut_down_before(worker: Any) -> Any:
            late.restore()
            self.shut_down()
            return commit(worker)

        await self.until(lambda: not self.supervisor.catching_up)
        late = self.patch(self.supervisor, "_commit", shut_down_before)
        self.shut_down()
        await self.until(lambda: not self.supervisor.catching_up)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"x")
            self.assertEqual(await deferToThread(client.recv, 1), b"")

    def shut_down(self) -> None:
        (opened,) = sockets_of(self.running)
        opened.shutdown(socket.SHUT_RDWR)
        self.supervisor._listen_on_new(self.supervisor._resources.look())

    async def test_closed(self) -> None:
        """It is closed if descriptors come, which no worker has to send, or a line without an end; nothing is kept, and the worker replaced."""
        memory = os.memfd_create("test")
        self.addCleanup(os.close, memory)
        cases = ((b"{", 10), (b'{"kind":"x","descriptors":1}\n', 1), (bytes(250 * 2**20), 0))
        for data, count in cases:
            (first, second), end = await self.begin_watched()
            with capturedLogs() as events:
                socket.send_fds(end, [data[:10]], [memory] * count)
                self.assertLess(await self.send(end, data[10:]), 4 * 2**20)
                await self.until(lambda first=first: first not in self.pids())  # type: ignore[misc]
                await self.until(self.supervisor.pool.are_ready)
            self.assertEqual(str(events).count("closing the channel to another process"), 1)
            self.assertEqual((self.pids()[1], len(open_files())), (second, 1))
            await self.stop()
            end.close()
