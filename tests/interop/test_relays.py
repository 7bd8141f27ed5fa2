"""Much at once through each relay: Redis' pipelines and large values, and iperf3 both ways at the same time."""

import csv
import json
import os
from typing import ClassVar

from tests.interop.children import Child, InteropTestCase, output_of
from tests.interop.servers import start_redis
from tests.support.each import for_each
from tests.support.ports import free_port
from tests.support.services import RELAYS, Service

_LISTENERS = "".join(
    f"[listen {name}]\nendpoint = 127.0.0.1:0\n" for name in ("tcp", "unix", "iperf3")
)

_RULES = f"""
{_LISTENERS}
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
under   = iperf3
backend = 127.0.0.1:{{iperf3}}
"""

_MIB = 2**20


@for_each("relay", RELAYS)
class RelayTests(InteropTestCase):
    relay: str
    muxes: ClassVar[dict[str, Service]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        redis = cls.share(start_redis(cls.folder))
        port = free_port()
        iperf3 = cls.share(
            Child("iperf3", "-s", "-B", "127.0.0.1", "-p", str(port), "--forceflush")
        )
        iperf3.wait_for("Server listening on")
        rules = _RULES.format(redis=redis, iperf3=port)
        cls.muxes = {
            relay: cls.share(Service(cls.folder, rules, f"relay = {relay}")) for relay in RELAYS
        }

    def setUp(self) -> None:
        self.mux = self.muxes[self.relay]

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
