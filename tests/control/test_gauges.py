"""The rows of gauges and counters: what follows from them, and what one can forget."""

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import txmux
from tests.support.certificates import lasting, without_end
from tests.support.folders import make_folder
from txmux.admin.metrics import METRICS
from txmux.client.tls.contexts import Contexts
from txmux.control.attention import measured
from txmux.control.gauge import Gauge
from txmux.control.gauges import COUNT, GAUGES, Gauges
from txmux.net.channel.message import Field
from txmux.net.channel.messages import MESSAGES
from txmux.net.tls.validity import Validity
from txmux.rules.model import Rules, Settings
from txmux.rules.reading.parser import parse
from txmux.telemetry.attention import OF_FEW, AttentionLog
from txmux.telemetry.counting import counter_groups
from txmux.telemetry.documents import StatusGauges
from txmux.telemetry.sources import Source

_SHOW = "import sys; from txmux.telemetry.presentation import date; print(date(float(sys.argv[1])))"
_TLS = """
[listen a]
endpoint = :1
[route r]
match = tls
terminate_tls = leaf.pem
tls_client_ca = ca.pem
tls_client_crl = crl.pem
backend = close
"""
_FOLDER = Path(txmux.__file__).parent / "control"


class GaugesTest(SynchronousTestCase):
    def test_each_is_shown(self) -> None:
        others = (path for path in _FOLDER.glob("*.py") if path.name != "gauges.py")
        features = _FOLDER.parent.glob("features/*/rows.py")
        readers = "".join(path.read_text() for path in (*others, *features))
        for row in GAUGES:
            is_read = re.search(rf"[.\"']{row.name}\b", readers)
            is_shown = row.metrics or row.status or row.attention or is_read
            self.assertTrue(
                is_shown, f"{row.name} is shown nowhere: give it metrics, a status, or an item of attention"
            )  # fmt: skip
        fields = {row.status[0] for row in GAUGES if row.status}
        self.assertEqual(fields, {*StatusGauges.__annotations__}, "each is a field of StatusGauges")
        self.assertRaises(TypeError, Gauge, collect=len)  # bounds
        self.assertRaises(TypeError, Gauge, bounds=Field(int))
        self.assertIn(COUNT, MESSAGES)
        assert COUNT.answer is not None
        collected = {row.name for row in GAUGES if row.collect is not None}
        self.assertEqual({*COUNT.answer.fields}, collected)
        self.assertEqual(Gauges.of([]), Gauges())

    def test_whatever_a_file_has_fits(self) -> None:
        """Certificates are valid from the year 1 to 9999, lists without an end, and names have any length."""
        folder = make_folder(self)
        units = ["unit" * 16] * 100
        own = lasting(datetime(1950, 1, 1), datetime(9999, 12, 31, 23, 59, 59), units)  # noqa: DTZ001
        (folder / "leaf.pem").write_bytes(own.pem + own.key_pem())
        (folder / "ca.pem").write_bytes(own.pem)
        (folder / "crl.pem").write_bytes(without_end(own.revoke()))
        rules = parse(_TLS, folder / "x.ini")
        (route,) = rules.routes
        assert route.terminate_tls is not None
        contexts = Contexts(route.terminate_tls)
        first = Validity("tls_client_ca", "old.pem", "CN=x", datetime.min.replace(tzinfo=UTC).timestamp(), 0.0)  # fmt: skip
        gauges = Gauges(certificates=[("r", one) for one in (*contexts.validity, first)])
        self.assertEqual(len(gauges.certificates), 5)  # the signature of the list does not fit
        self.assertEqual(len([*measured(gauges, rules, time.time())]), 2)
        shown = [{"route": "r", **one} for one in json.loads(json.dumps(contexts.shown))]
        for zone in ("UTC", "Pacific/Kiritimati"):
            done = subprocess.run((sys.executable, "-c", _SHOW, str(shown[0]["not_after"])), env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=False)  # fmt: skip
            self.assertEqual(done.stdout[:8], "9999-12-", done.stderr)

    def test_authorities_of_one_name(self) -> None:
        """None of them hides another, in its file or another one."""
        rows = [
            Validity("tls_client_ca", file, "CN=x", 0.0, ends)
            for file, ends in (("a.pem", 1.0), ("a.pem", 2.0), ("a.pem", 3e9), ("b.pem", 1.0))
        ]
        gauges = Gauges(certificates=[("r", one) for one in rows])
        rules = Rules(Path("x.ini"), Settings(), (), ())
        found = AttentionLog().record(measured(gauges, rules, 2e9))
        self.assertEqual(
            sorted((item.level, item.text, item.since) for item in found),
            [
                ("critical", "the authority 'CN=x' in b.pem of route r ended on 1970-01-01 00:00 UTC", 1.0),
                ("warning", "the authority 'CN=x' in a.pem of route r ended on 1970-01-01 00:00 UTC", 1.0),
                ("warning", "the authority 'CN=x' in a.pem of route r ended on 1970-01-01 00:00 UTC", 2.0),
            ],
        )  # fmt: skip

    def test_cells_that_are_not_just_added_up(self) -> None:
        processes = [
            {"connected": 1, "check time": 9_000_000, "waiting 0": 5, "last failure": 700},
            {"connected": 2, "check time": 3_000_000, "last failure": 600},
            {"connected": 4},
        ]
        blocks = [[its.get(name, 0) for name in counter_groups.SERVER.names] for its in processes]
        server = counter_groups.ServerTotals(("b", "s"), counter_groups.SERVER.combine(blocks))
        self.assertEqual((server.backend, server.server, server.total), ("b", "s", 7))
        self.assertEqual(server.check_seconds, 3.0)
        self.assertEqual(server.last_failure, counter_groups.last_failure_of(700))
        self.assertEqual(server.waiting["0"], 5)
        self.assertEqual(counter_groups.SERVER.combine([]), [0] * len(counter_groups.SERVER.names))

    def test_gauges_of_two_workers(self) -> None:
        first = {
            "descriptors": [9, 20], "sources": {"x": 3, "y": 1}, "lost_lines": {"log": 0},
            "ports": [["b", "s", f"x{OF_FEW}", 1, 7.0, 9.0]], "handovers": [["/x", "x", 2, 7.0, True, 9.0]], "refusing": [["x", "no-route", "", 1.5]], "generations": [1, 2],
        }  # fmt: skip
        second = {
            "descriptors": [9, 99], "sources": {"x": 2}, "lost_lines": {"log": 4},
            "ports": [["b", "s", "y", 2, 5.0, 9.0]], "handovers": [["/x", "y", 1, 5.0, False, 9.0]], "refusing": [["x", "no-route", "", 1.0]], "generations": [2, 3],
        }  # fmt: skip
        gauges = Gauges.of([first, second])
        self.assertEqual((gauges.descriptors, gauges.generations), ((9, 20), 3))
        self.assertEqual((gauges.sources, gauges.lost_lines), ({"x": 3, "y": 1}, {"log": 4}))
        self.assertEqual(gauges.refused_by_many(), {("x", "no-route"): 2.5})
        self.assertEqual(gauges.handovers, {"/x": ("y", 3, 5.0, True)})
        self.assertEqual(gauges.ports, {("b", "s"): (f"x{OF_FEW}", 3, 5.0)})
        # What works in one after the last failure of another works: that one may have no more clients that show it.
        failing = {"ports": [["b", "s", "x", 2, 7.0, 9.0]], "handovers": [["/x", "x", 2, 7.0, True, 9.0]]}  # fmt: skip
        for when, is_over in ((8.0, False), (10.0, True)):
            works = {"ports": [["b", "s", "", 0, 0.0, when]], "handovers": [["/x", "", 0, 0.0, False, when]]}  # fmt: skip
            for answers in ([failing, works], [works, failing]):
                gauges = Gauges.of(answers)
                self.assertEqual((not gauges.ports, not gauges.handovers), (is_over, is_over))

    def test_what_each_says_to_whom(self) -> None:
        """In the status and the metrics; a process whose sources log for themselves reports them to nobody."""

        def valid(file: str, ends: float, what: str = "") -> tuple[str, Validity]:
            return "r", Validity("terminate_tls", file, what, 0.0, ends)

        gauges = Gauges(
            certificates=[valid("a", 7.0), valid("a", 5.0, "CN=chain"), valid("b", 9.0), ("r", Validity("tls_client_ca", "c", "x", 0.0, 1.0))],
            descriptors=(3, 9), refusing={("x", "no-route", name): rate for name, rate in (("", 9.0), ("a", 4.0), ("b", 2.0), ("c", 3.0))},
            stale={("b", "s"): (90.0, "no answer"), ("b", "t"): (None, "refused")},
        )  # fmt: skip
        status = gauges.in_status()
        self.assertEqual(status["descriptors"], {"open": 3, "max": 9})
        ends = [("a", 5.0), ("b", 9.0)]
        expected = [{"route": "r", "file": file, "expires": moment} for file, moment in ends]
        self.assertEqual(status["certificates"], expected)
        self.assertEqual(gauges.refused_by_many(), {("x", "no-route"): 2.0})
        ages = {"s": "addresses 1 min 30 s old: no answer", "t": "no address: refused"}
        self.assertEqual(gauges.stale_ages(), {("b", name): age for name, age in ages.items()})
        [stale, outside] = (row for row in GAUGES if row.name in {"stale", "outside"})
        self.assertEqual([*stale.metrics[0].samples(gauges.stale, None)], [(("b", "s"), 90.0)])
        one, other, third = (Source(kind, "x", "", lambda: 5.0, logs=kind == "b") for kind in "abc")
        parts = {"f": SimpleNamespace(sources=lambda: [third])}
        upstreams = SimpleNamespace(sources=lambda: [one, other])
        serving: Any = SimpleNamespace(upstreams=upstreams, runtime=SimpleNamespace(parts=parts))
        assert outside.collect is not None
        self.assertEqual([row[0] for row in outside.collect(serving)], ["a x", "c x"])

    def test_each_has_a_name_of_its_own_and_says_what_it_is(self) -> None:
        names = [metric.name for metric in METRICS]
        self.assertEqual(len({*names}), len(names))
        for metric in METRICS:
            for text in filter(None, (metric.help, metric.more)):
                self.assertRegex(text, r"^[A-Z0-9`].*\.$", metric.name)
            self.assertNotRegex(metric.help, r"[`\n\\]|\]\(")  # as it is in `/metrics`
