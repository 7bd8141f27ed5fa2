"""What signals do to a running service, and what goes on while it is upgraded and reloaded.

With ``TXMUX_LONG=1``, files are of 1 GiB instead of 100 MiB, and there are twenty reloads.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import pytest

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually
from tests.interop.servers import files_site, start_nginx, start_redis, start_sshd
from tests.support.echo import EchoServer, ThreadServer
from tests.support.ports import free_port
from tests.support.services import Service

pytestmark = pytest.mark.by_turns

_BLOCK = 2**16
_PAUSE = 0.02
"""Seconds between two blocks: some MiB a second each way."""
_LONG_PAUSE = 1.0
"""The same, when enough has passed already."""


class Paced(ThreadServer):
    """Forwards to a server slowly, and very slowly after `most` bytes each way of a connection, until it is released."""

    def __init__(self, server: int, most: int) -> None:
        self._server, self._most = server, most
        self._released = threading.Event()
        self.passed = 0
        self._counting = threading.Lock()
        super().__init__(self._forward)

    def release(self) -> None:
        self._released.set()

    def _forward(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._server)) as server:
            back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
            back.start()
            self._pass_on(client, server)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_BLOCK):
                self._released.wait(_PAUSE if passed < self._most else _LONG_PAUSE)
                target.sendall(data)
                passed += len(data)
                with self._counting:
                    self.passed += len(data)
            target.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        self.release()
        super().end()


_RULES = """
[route ssh]
match   = ssh
backend = 127.0.0.1:{ssh}

[route web]
match   = http
backend = 127.0.0.1:{web}
"""


_SIZE = 2**23
_FAST = 2**18
"""Bytes of a copy that come quickly; the others would take two minutes."""


class DrainTests(InteropTestCase):
    web: ClassVar[int]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))
        cls.web = free_port()
        cls.share(start_nginx(cls.folder, files_site(cls.web, cls.folder)))

    def start_session(self, mux: Service) -> Child:
        destination = ("-p", str(mux.port), "127.0.0.1")
        session = self.own(
            Child("ssh", *self.ssh.options, *destination, "echo ready; cat", stdin=True)
        )
        session.wait_for("^ready$")
        return session

    def start_transfer(self, *command: str, copy: Path) -> tuple[Child, Path]:
        transfer = self.own(Child(*command, copy))
        eventually(lambda: copy.exists() and copy.stat().st_size > 0, "the first bytes come")
        return transfer, copy

    def test_connections_finish_and_new_ones_are_refused(self) -> None:
        doors = [self.own(Paced(port, _FAST)) for port in (self.ssh.port, self.web)]
        ssh, web = (door.port for door in doors)
        mux = Service(self.folder, _RULES.format(ssh=ssh, web=web), "drain_timeout = 10m")
        self.addCleanup(mux.child.end)
        original = self.folder / "original"
        original.write_bytes(os.urandom(_SIZE))
        session = self.start_session(mux)
        scp = ("scp", "-q", *self.ssh.options, "-P", str(mux.port))
        curl = ("curl", "-q", "-sS", "--fail", f"http://127.0.0.1:{mux.port}/original", "-o")
        by_ssh = self.start_transfer(*scp, f"127.0.0.1:{original}", copy=self.folder / "by-ssh")
        by_http = self.start_transfer(*curl, copy=self.folder / "by-http")
        mux.terminate()
        mux.child.wait_for(r"connections: 3, .*\b600 s\b")
        self.assertRaises(ConnectionRefusedError, mux.connect)
        for _, copy in (by_ssh, by_http):
            self.assertLess(copy.stat().st_size, _SIZE)
        session.say(b"last words\n")
        self.assertEqual((session.wait(), session.output), (0, "ready\nlast words\n"))
        for door in doors:
            door.release()
        for transfer, copy in (by_ssh, by_http):
            self.assertEqual((transfer.wait(), transfer.output), (0, ""))
            self.assertEqual(copy.read_bytes(), original.read_bytes())
        mux.assert_stopped()
        self.assertEqual({line["reason"] for line in mux.take(3)}, {"done"})


class SameMomentTests(InteropTestCase):
    """Two signals to stop that come before the first has been acted on."""

    def test_both_mean_at_once(self) -> None:
        for workers in (1, 2):
            echo = self.own(EchoServer())
            rules = f"[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{echo.port}\n"
            mux = Service(self.folder, rules, f"workers = {workers}\ndrain_timeout = 1h")
            self.addCleanup(mux.child.end)
            with mux.connect() as client:
                client.sendall(b"x")
                self.assertEqual(client.recv(1), b"x")
                for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
                    mux.child.process.send_signal(number)
                self.assertRaises(ConnectionResetError, client.recv, 1)
            # Whichever comes first: two threads may take them.
            self.assertIn(mux.child.wait(), {-signal.SIGINT, -signal.SIGTERM})
            self.assertNotIn("Traceback", mux.child.output)
            self.assertEqual(mux.take_one()["reason"], "drained")

    def test_many_are_no_error(self) -> None:
        mux = Service(self.folder, "")
        self.addCleanup(mux.child.end)
        mux.terminate()
        ended = False
        while not ended:
            # Without a pause it would do nothing but handle signals.
            with contextlib.suppress(subprocess.TimeoutExpired):
                mux.child.process.wait(0.01)
                ended = True
            mux.terminate()
        mux.assert_stopped()


_UPGRADE_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default  = 127.0.0.1:{port}
"""
_UPGRADES = 3
_RELOADS = 20 if os.environ.get("TXMUX_LONG") else 3
_MIBS = 1024 if os.environ.get("TXMUX_LONG") else 100
"""Of files, in MiB."""


class UpgradeTests(InteropTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))

    def upgrading(self, port: int, settings: str = "") -> Service:
        mux = Service(self.folder, _UPGRADE_RULES.format(port=port), settings)
        self.addCleanup(mux.kill_all)
        return mux

    def changes(self, mux: Service) -> Iterator[int]:
        """Upgrade and reload; somebody may look each time, and is given its number."""
        for number in range(_RELOADS):
            self.reload(mux, number)
            if (number + 1) % (_RELOADS // _UPGRADES) == 0:
                mux.upgrade()
            yield number

    def reload(self, mux: Service, number: int) -> None:
        route = f"\n[route new{number}]\nmatch = ssh\nbackend = 127.0.0.1:1\ndry_run = yes\n"
        self.assertIn("rules reloaded", mux.reload((r"(?s)\n(\[route .*)?\Z", route)))

    def change_under(self, mux: Service, copies: Paced) -> None:
        """Upgrade and reload while copies are under way, and then let them go as fast as they can."""
        passed = copies.passed
        for _ in self.changes(mux):
            eventually(lambda p=passed: copies.passed > p, "the copies go on")  # type: ignore[misc]
            passed = copies.passed
        copies.release()

    def test_ssh_session(self) -> None:
        mux = self.upgrading(self.ssh.port)
        port = str(mux.port)
        session = self.own(
            Child("ssh", *self.ssh.options, "-p", port, "127.0.0.1", "cat; exit 7", stdin=True)
        )
        stdin = session.process.stdin
        assert stdin is not None
        for number in self.changes(mux):
            stdin.write(f"line {number};\n".encode())
            stdin.flush()
            session.wait_for(f"line {number};")
        stdin.close()
        self.assertEqual(session.wait(), 7)
        self.assertEqual(mux.take_one()["reason"], "done")
        mux.stop()

    def test_scp(self) -> None:
        slow = self.own(Paced(self.ssh.port, _MIBS * 2**19))
        mux = self.upgrading(slow.port, "workers = 2")
        original, there, back = (self.folder / name for name in ("original", "there", "back"))
        block = os.urandom(2**20)
        with original.open("wb") as file:
            for number in range(_MIBS):
                file.write(number.to_bytes(4, "big") + block[4:])
        checksum = sha256(original.read_bytes()).hexdigest()
        options = ("-q", *self.ssh.options, "-P", str(mux.port))
        ways = ((original, f"127.0.0.1:{there}"), (f"127.0.0.1:{original}", back))
        copies = [Child("scp", *options, *way, limit=600) for way in ways]
        for copy in copies:
            self.addCleanup(copy.end)
        eventually(lambda: len(mux.established()) == len(copies), "the copies have begun")
        self.change_under(mux, slow)
        for copy in copies:
            copy.process.wait(PATIENCE)
            self.assertEqual(copy.wait(), 0, copy.output)
        for result in (there, back):
            self.assertEqual(sha256(result.read_bytes()).hexdigest(), checksum)
        upload, download = sorted(mux.take(2), key=lambda line: line["bytes_out"])
        self.assertEqual((upload["reason"], download["reason"]), ("done", "done"))
        self.assertGreater(upload["bytes_in"], _MIBS * 2**20)
        self.assertGreater(download["bytes_out"], _MIBS * 2**20)
        mux.stop()

    def test_redis_benchmark(self) -> None:
        redis = self.own(start_redis(self.folder))
        mux = self.upgrading(redis.port)
        # It goes on and on, and ends when it hears of an error.
        arguments = ("-p", str(mux.port), "-t", "ping_mbulk", "-n", "20000", "-c", "20", "-l")
        benchmark = self.own(Child("redis-benchmark", *arguments))
        eventually(lambda: bool(mux.established()), "the benchmark has begun")
        for _ in self.changes(mux):
            pass
        rounds = benchmark.output.count("PING_MBULK")
        eventually(
            lambda: benchmark.output.count("PING_MBULK") > rounds + 1, "the benchmark goes on"
        )
        self.assertIsNone(benchmark.process.poll())
        self.assertNotIn("Error", benchmark.output)
        mux.stop()
