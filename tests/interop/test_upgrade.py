"""Real programs go on while txmux is upgraded under them."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import Child, InteropTestCase, eventually
from tests.interop.servers import start_redis, start_sshd
from tests.processes.upgrading import Upgrading

if TYPE_CHECKING:
    from tests.interop.servers import SshServer

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default  = 127.0.0.1:{port}
"""
_UPGRADES = 3


class UpgradeTests(InteropTestCase):
    """Three upgrades each."""

    ssh: ClassVar[SshServer]

    @classmethod
    def setUpClass(cls) -> None:
        """Start the SSH server."""
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))

    def upgrading(self, port: int, settings: str = "") -> Upgrading:
        """Start txmux before a server."""
        mux = Upgrading(self.folder, _RULES.format(port=port), settings)
        self.addCleanup(mux.kill)
        return mux

    def test_ssh_session(self) -> None:
        """An OpenSSH session answers after each upgrade, and ends with its exit status."""
        mux = self.upgrading(self.ssh.port)
        port = str(mux.port)
        session = Child(
            "ssh", *self.ssh.options, "-p", port, "127.0.0.1", "cat; exit 7", stdin=True
        )
        self.addCleanup(session.end)
        stdin = session.process.stdin
        assert stdin is not None
        for number in range(_UPGRADES + 1):
            stdin.write(f"line {number}\n".encode())
            stdin.flush()
            session.wait_for(f"line {number}")
            if number < _UPGRADES:
                mux.upgrade()
        stdin.close()
        self.assertEqual(session.wait(), 7)
        self.assertEqual(mux.take_one()["reason"], "done")
        mux.stop()

    def test_scp(self) -> None:
        """A file of 300 MiB is copied whole, there and back, at the same time."""
        mux = self.upgrading(self.ssh.port, "workers = 2")
        original, there, back = (self.folder / name for name in ("original", "there", "back"))
        block = os.urandom(2**20)
        with original.open("wb") as file:
            for number in range(300):
                file.write(number.to_bytes(4, "big") + block[4:])
        checksum = sha256(original.read_bytes()).hexdigest()
        # Slow enough to be under way all the time: kbit/s.
        options = ("-q", "-l", "120000", *self.ssh.options, "-P", str(mux.port))
        ways = ((original, f"127.0.0.1:{there}"), (f"127.0.0.1:{original}", back))
        copies = [Child("scp", *options, *way) for way in ways]
        for copy in copies:
            self.addCleanup(copy.end)
        eventually(lambda: len(mux.established()) == len(copies), "the copies have begun")
        for _ in range(_UPGRADES):
            mux.upgrade()
        for copy in copies:
            self.assertIsNone(copy.process.poll())
        for copy in copies:
            eventually(lambda: copy.process.poll() is not None, "it is copied")  # noqa: B023
            self.assertEqual(copy.wait(), 0, copy.output)
        for result in (there, back):
            self.assertEqual(sha256(result.read_bytes()).hexdigest(), checksum)
        upload, download = sorted(mux.take(2), key=lambda line: line["bytes_out"])
        self.assertEqual((upload["reason"], download["reason"]), ("done", "done"))
        self.assertGreater(upload["bytes_in"], 300 * 2**20)
        self.assertGreater(download["bytes_out"], 300 * 2**20)
        mux.stop()

    def test_redis_benchmark(self) -> None:
        """The clients of a benchmark are all served to the end."""
        redis = self.own(start_redis(self.folder))
        mux = self.upgrading(redis.port)
        # It goes on and on, and ends when it hears of an error.
        arguments = ("-p", str(mux.port), "-t", "ping_mbulk", "-n", "20000", "-c", "20", "-l")
        benchmark = Child("redis-benchmark", *arguments)
        self.addCleanup(benchmark.end)
        eventually(lambda: bool(mux.established()), "the benchmark has begun")
        for _ in range(_UPGRADES):
            mux.upgrade()
        rounds = benchmark.output.count("PING_MBULK")
        eventually(
            lambda: benchmark.output.count("PING_MBULK") > rounds + 1, "the benchmark goes on"
        )
        self.assertIsNone(benchmark.process.poll())
        self.assertNotIn("Error", benchmark.output)
        mux.stop()
