"""Real programs go on while txmux is upgraded and reloaded under them.

With ``TXMUX_LONG=1``, files are of 1 GiB instead of 100 MiB, and there are twenty reloads.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from hashlib import sha256
from typing import TYPE_CHECKING

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, output_of
from tests.interop.pacing import Paced
from tests.interop.servers import start_redis, start_sshd
from tests.processes.upgrading import Upgrading
from tests.support.ports import stop_listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default  = 127.0.0.1:{port}
"""
_UPGRADES = 3
_RELOADS = 20 if "TXMUX_LONG" in os.environ else 3
_SIZE = 1024 if "TXMUX_LONG" in os.environ else 100
"""Of files, in MiB."""


class UpgradeTests(InteropTestCase):
    """Three upgrades each, with reloads between them."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))

    def upgrading(self, port: int, settings: str = "") -> Upgrading:
        mux = Upgrading(self.folder, _RULES.format(port=port), settings)
        self.addCleanup(mux.kill)
        return mux

    def changes(self, mux: Upgrading) -> Iterator[int]:
        """Upgrade and reload; somebody may look each time, and is given its number."""
        for number in range(_RELOADS):
            self.reload(mux, number)
            if (number + 1) % (_RELOADS // _UPGRADES) == 0:
                mux.upgrade()
            yield number

    def reload(self, mux: Upgrading, number: int) -> None:
        route = f"\n[route new{number}]\nmatch = ssh\nbackend = 127.0.0.1:1\ndry_run = yes\n"
        self.assertIn("rules reloaded", mux.reload((r"(?s)\n(\[route .*)?\Z", route)))

    def change_under(self, mux: Upgrading, copies: Paced) -> None:
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
        slow = self.own(Paced(self.ssh.port, _SIZE * 2**19))
        mux = self.upgrading(slow.port, "workers = 2")
        original, there, back = (self.folder / name for name in ("original", "there", "back"))
        block = os.urandom(2**20)
        with original.open("wb") as file:
            for number in range(_SIZE):
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
        self.assertGreater(upload["bytes_in"], _SIZE * 2**20)
        self.assertGreater(download["bytes_out"], _SIZE * 2**20)
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

    def test_redis_sessions(self) -> None:
        redis = self.own(start_redis(self.folder))
        mux = self.upgrading(redis.port)
        monitor, subscribed = (
            Child("redis-cli", "-p", str(mux.port), *words)
            for words in (("monitor",), ("subscribe", "news"))
        )
        for session in (monitor, subscribed):
            self.addCleanup(session.end)
        monitor.wait_for("OK")
        subscribed.wait_for("subscribe")
        for number in self.changes(mux):
            output_of("redis-cli", "-p", str(redis.port), "publish", "news", f"number {number};")
            for session in (monitor, subscribed):
                session.wait_for(f"number {number};")
        for session in (monitor, subscribed):
            self.assertEqual(session.output.count("number "), _RELOADS)
            session.end()
        mux.stop()

    def test_download(self) -> None:
        original, copy = self.folder / "download", self.folder / "downloaded"
        with original.open("wb") as file:
            for number in range(_SIZE):
                file.write(number.to_bytes(4, "big") * 2**18)
        slow = self.own(Paced(self.server_of(original), _SIZE * 2**19))
        mux = self.upgrading(slow.port)
        curl = self.own(
            Child("curl", "-sS", "--fail", "-o", copy, f"http://127.0.0.1:{mux.port}/", limit=600)
        )
        eventually(lambda: bool(mux.established()), "the download has begun")
        self.change_under(mux, slow)
        curl.process.wait(PATIENCE)
        self.assertEqual(curl.wait(), 0, curl.output)
        self.assertEqual(*(sha256(path.read_bytes()).hexdigest() for path in (original, copy)))
        self.assertGreater(mux.take_one()["bytes_out"], _SIZE * 2**20)
        mux.stop()

    def server_of(self, path: Path) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(stop_listening, listening)

        def serve() -> None:
            with contextlib.suppress(OSError):
                client, _ = listening.accept()
                with client, path.open("rb") as file:
                    client.recv(2**16)
                    length = path.stat().st_size
                    client.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())
                    client.sendfile(file)

        threading.Thread(target=serve, daemon=True).start()
        return int(listening.getsockname()[1])
