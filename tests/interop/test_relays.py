"""Much at once through each relay: OpenSSH's copies, Redis' pipelines, and iperf3 both ways at the same time."""

import csv
import json
import os
from hashlib import sha256
from pathlib import Path

from tests.interop.children import Child, InteropTestCase, output_of
from tests.interop.mux import Mux
from tests.interop.servers import start_redis, start_sshd
from tests.support.ports import free_port
from txmux.net.relay.kernel import is_supported

_LISTENERS = "".join(
    f"[listen {name}]\nendpoint = 127.0.0.1:0\n" for name in ("ssh", "tcp", "unix", "iperf3")
)

_RULES = f"""
{_LISTENERS}
[route ssh]
match   = ssh
backend = 127.0.0.1:{{ssh.port}}

[route redis-tcp]
match   = redis
under   = tcp
backend = 127.0.0.1:{{redis.port}}

[route redis-unix]
match   = redis
under   = unix
backend = unix:{{redis.socket}}

[route iperf3]
match   = iperf3
backend = 127.0.0.1:{{iperf3}}
"""

_MIB = 2**20


class KernelTests(InteropTestCase):
    """The kernel relay, by which so many MiB are copied there and back."""

    skip = None if is_supported() else "this system cannot"
    relay = "kernel"
    copied = 500

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))
        redis = cls.share(start_redis(cls.folder))
        port = free_port()
        iperf3 = cls.share(
            Child("iperf3", "-s", "-B", "127.0.0.1", "-p", str(port), "--forceflush")
        )
        iperf3.wait_for("Server listening on")
        rules = _RULES.format(ssh=cls.ssh, redis=redis, iperf3=port)
        cls.mux = cls.share(Mux(cls.folder, rules, f"relay = {cls.relay}"))

    def test_copies(self) -> None:
        original, there, back = (self.folder / name for name in ("original", "there", "back"))
        with original.open("wb") as file:
            for _ in range(self.copied):
                file.write(os.urandom(_MIB))
        options = ("-q", *self.ssh.options, "-P", str(self.mux.ports["ssh"]))
        for source, target in ((original, f"127.0.0.1:{there}"), (f"127.0.0.1:{there}", back)):
            output_of("scp", *options, source, target)
        checksum = _checksum(original)
        self.assertEqual((_checksum(there), _checksum(back)), (checksum, checksum))
        upload, download = self.mux.take(2, "ssh")
        self.assertEqual((upload["reason"], download["reason"]), ("done", "done"))
        self.assertGreater(upload["bytes_in"], self.copied * _MIB)
        self.assertGreater(download["bytes_out"], self.copied * _MIB)

    def test_pipelines_small_and_large_by_tcp_and_unix(self) -> None:
        for listener in ("tcp", "unix"):
            port = str(self.mux.ports[listener])
            for size, count, clients in (("3", "20000", 20), ("20000", "2000", 10)):
                table = output_of(
                    "redis-benchmark",
                    *("-p", port, "-t", "ping,set,get,lpush", "-P", "16", "-c", str(clients)),
                    *("-n", count, "-d", size, "--csv"),
                )
                measured = {row[0] for row in csv.reader(table.decode().splitlines())}
                self.assertLessEqual({"PING_INLINE", "SET", "GET", "LPUSH"}, measured)
            value = os.urandom(4 * _MIB).hex().encode()
            said = output_of("redis-cli", "-p", port, "-x", "set", "big", stdin=value)
            self.assertEqual(said, b"OK\n")
            self.assertEqual(output_of("redis-cli", "-p", port, "get", "big"), value + b"\n")

    def test_both_ways_at_once(self) -> None:
        port = str(self.mux.ports["iperf3"])
        options = ("-p", port, "--bidir", "-P", "2", "-n", "400M", "-J")
        report = json.loads(output_of("iperf3", "-c", "127.0.0.1", *options))["end"]
        for way in ("sum_received", "sum_received_bidir_reverse"):
            # It ends when one way has had 400 MB, and nobody promises the other one as much.
            self.assertGreater(report[way]["bytes"], 25 * _MIB)
        lines = self.mux.take(5, "iperf3")
        self.assertEqual({line["route"] for line in lines}, {"iperf3"})
        for way, count in (
            ("sum_received", sum(line["bytes_in"] for line in lines)),
            ("sum_received_bidir_reverse", sum(line["bytes_out"] for line in lines)),
        ):
            self.assertGreaterEqual(count, report[way]["bytes"])


class PortableTests(KernelTests):
    skip = None
    relay = "portable"
    copied = 100


def _checksum(path: Path) -> str:
    total = sha256()
    with path.open("rb") as file:
        while piece := file.read(_MIB):
            total.update(piece)
    return total.hexdigest()
