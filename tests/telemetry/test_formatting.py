from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.formatting import (
    aligned,
    byte_rate,
    compact_duration,
    count,
    duration,
    rate,
    server_state,
    si_number,
    size,
    worst_first,
)


class AmountTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        self.assertEqual(
            [size(0), size(999), size(1536), size(2**30 * 20)],
            ["0 B", "999 B", "1.5 KiB", "20 GiB"],
        )
        self.assertEqual(
            [
                duration(0.25),
                duration(4.97),
                duration(59),
                duration(5400),
                duration(90000),
                duration(86400 * 40),
            ],
            ["0.2 s", "5 s", "59 s", "1 h 30 min", "1 d 1 h", "40 d"],
        )
        self.assertEqual(
            [count(1234567), rate(0.25), rate(1500)],
            ["1\u202f234\u202f567", "0.2/s", "1\u202f500/s"],
        )
        self.assertEqual(
            [
                compact_duration(59.9), compact_duration(3720), si_number(0), si_number(1234),
                si_number(5.68e6), si_number(999.7), si_number(7e12),
            ],
            ["59s", "1h2m", "0", "1.23 k", "5.68 M", "1 k", "7e+03 G"],
        )  # fmt: skip
        self.assertEqual(
            [byte_rate(0), byte_rate(333), byte_rate(8010), byte_rate(5.68e6)],
            ["0 B/s", "333 B/s", "8.01 kB/s", "5.68 MB/s"],
        )

    def test_numbers_at_the_right_of_wide_enough_columns(self) -> None:
        lines = [*aligned([("name", "n", ""), ("a", "10", "")], numbers=[1])]
        self.assertEqual(lines, ["name   n", "a     10"])


class ServerTests(SynchronousTestCase):
    def test_words_and_order(self) -> None:
        """A server that nothing checks may be up or not; a drained one is down when its checks have failed often enough, as the reason tells."""
        states = {
            "a": ("up", None), "b": ("up", True), "c": ("drain", True), "d": ("drain", False),
            "e": ("drain", None), "f": ("ejected", True), "g": ("down", False),
        }  # fmt: skip
        servers: list[dict[str, Any]] = [
            {"server": name, "state": state, "check": None if ok is None else {"ok": ok}}
            for name, (state, ok) in states.items()
        ]
        servers[3]["why"] = "drained by an operator, and down: 2 checks failed; last: timed out"
        servers[4]["check"] = {"ok": False}  # the first of two
        servers.append({"server": "i", "state": "up", "check": None, "checked": True})
        dead = [{"server": "h", "state": "down"}]
        listed = worst_first([{"name": "web", "servers": servers}, {"name": "db", "servers": dead}])
        self.assertEqual(
            [(server["server"], server_state(server)) for _, server in listed],
            [
                ("h", "down"),  # its backend has none that is up
                ("g", "down"),
                ("f", "ejected"),
                ("d", "drained, and down"),
                ("c", "drain"),
                ("e", "drain"),
                ("a", "not checked"),
                ("b", "up"),
                ("i", "checking"),  # its first check has no result yet
            ],
        )
