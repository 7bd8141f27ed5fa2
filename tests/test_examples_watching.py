"""The alerts and the dashboard of the examples ask for what there is."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.programs import run_program
from tests.support.folders import make_folder

_ROOT = Path(__file__).parent.parent
_ALERTS = _ROOT / "examples" / "prometheus" / "txmux.rules.yml"
_DASHBOARD = _ROOT / "examples" / "grafana" / "txmux.json"


def told() -> set[str]:
    page = (_ROOT / "docs" / "reference" / "metrics.md").read_text()
    return set(re.findall(r"`(txmux_[a-z_]+)`", page))


def metrics_in(text: str) -> set[str]:
    found = set(re.findall(r"\btxmux_[a-z_]+", text))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text())["panels"]
    return found


Series = dict[str, str]


def server(state: str, *, up: bool, name: str = "s") -> Series:
    """Write the series of a server; see `txmux.admin.metrics`."""
    series = {f'txmux_backend_server_up{{backend="b",server="{name}"}}': f"{up:d}x60"}
    labels = f'backend="b",server="{name}",state="{state}"'
    return {**series, f"txmux_backend_server_state{{{labels}}}": "1x60"}


def attention(what: str, level: str = "warning", count: int = 1) -> Series:
    return {f'txmux_attention{{level="{level}",what="{what}"}}': f"{count}x60"}


def first_byte(fast: int, slow: int) -> Series:
    """Write a histogram: so many answers a minute within 10 ms for 20 minutes, and then in 2 to 5 s."""
    after = {"0.01": 0, "2": 0, "5": slow, "+Inf": slow}
    name = "txmux_first_byte_seconds_bucket"
    return {
        f'{name}{{backend="b",le="{bound}"}}': f"0+{fast}x20 {20 * fast}+{count}x40"
        for bound, count in after.items()
    }


_DAY = 86400
_UP, _WELL = server("up", up=True), server("up", up=True, name="t")
_DRAINED = server("drain", up=True)
_EXPIRY = 'txmux_certificate_expiry_timestamp_seconds{file="f",route="r"}'
_FAILED = 'txmux_backend_checks_failed_total{backend="b",server="s"}'
_ENDED = 'txmux_connections_ended_total{listener="l",reason="%s"}'
_REFUSED = 'txmux_limit_refused_total{limit="rate",listener="l"}'

_CASES: list[tuple[str, Series, list[Series]]] = [
    ("TxmuxDown", {'up{job="txmux"}': "0x60"}, [{'up{job="txmux"}': "1x60"}]),
    (
        "TxmuxAttentionCritical",
        attention("workers", "critical"),
        [attention("workers", "critical", 0), attention("limits", "note")],
    ),
    ("TxmuxAttention", attention("upgrade"), [attention("upgrade", count=0)]),
    ("TxmuxCannotAccept", attention("accept", "critical"), [attention("accept", "note")]),
    ("TxmuxNoSourcePort", attention("ports", "critical"), []),
    (
        "TxmuxBackendWithoutServer TxmuxServerDown",
        # A drained server does not serve either.
        server("down", up=False) | server("drain", up=True, name="t"),
        [_UP, _DRAINED, server("maintenance", up=True)],
    ),
    ("TxmuxServerFailing", _WELL | server("silent", up=False), [_UP, _WELL | _DRAINED]),
    ("TxmuxServerDown", _WELL | server("down", up=False), [_WELL | _DRAINED]),
    (
        "TxmuxChecksFail",
        _UP | {_FAILED: "0+1x60"},
        [_DRAINED | {_FAILED: "0+1x60"}, _UP | {_FAILED: "0x60"}],
    ),
    ("TxmuxFirstByteSlow", first_byte(10, 10), [first_byte(10, 0), first_byte(0, 10)]),
    ("TxmuxReloadFailed", {"txmux_reload_success": "0x60"}, [{"txmux_reload_success": "1x60"}]),
    (
        "TxmuxDescriptorsShort",
        {"txmux_open_descriptors": "95x60"},
        [{"txmux_open_descriptors": "20x60"}],
    ),
    ("TxmuxCertificateEnded", {_EXPIRY: "600x60"}, [{_EXPIRY: f"{90 * _DAY}x60"}]),
    ("TxmuxCertificateEnds", {_EXPIRY: f"{10 * _DAY}x60"}, [{_EXPIRY: f"{90 * _DAY}x60"}]),
    ("TxmuxCertificateUnusable", attention("certificates"), []),
    (
        "TxmuxSourceFails",
        {'txmux_source_up{source="s"}': "0x60"},
        [{'txmux_source_up{source="s"}': "1x60"}],
    ),
    ("TxmuxNotShared", {"txmux_cluster_up": "0x60"}, [{"txmux_cluster_up": "1x60"}]),
    ("TxmuxWorkersCrash", {"txmux_worker_restarts_total": "0+1x60"}, []),
    (
        "TxmuxLogLinesLost",
        {"txmux_access_log_lost_total": "0+9x60"},
        [{"txmux_access_log_lost_total": "9x60"}],
    ),
    ("TxmuxClientsRefused", {_REFUSED: "0+600x60"}, [{_REFUSED: "0+6x60"}]),
    ("TxmuxManyBans", {"txmux_bans": "90000x60"}, [{"txmux_bans": "500x60"}]),
    (
        "TxmuxNoRoute",
        {_ENDED % "no-route": "0+9x60", _ENDED % "done": "0+9x60"},
        [{_ENDED % "no-route": "0+1x60", _ENDED % "done": "0+9x60"}],
    ),
]
"""Alerts, with series for which they fire and no others, and series for which none does."""


class AlertTests(TestCase):
    async def test_promtool(self) -> None:
        out, errors, status = await run_program("promtool", "check", "rules", str(_ALERTS))
        self.assertEqual((errors, status), (b"", 0))
        self.assertIn(b"SUCCESS", out)

    async def test_fire(self) -> None:
        """Each alert comes for the series that it is for, and for no others."""
        tests = [
            {
                "name": f"{alerts}, {series}",
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values}
                    for name, values in {"txmux_max_descriptors": "100x60", **series}.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": 'sort_desc(count by (alertname) (ALERTS{alertstate="firing"}))',
                        "eval_time": "30m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{name}"}}', "value": 1}
                            for name in (alerts.split() if is_firing else ())
                        ],
                    }
                ],
            }
            for alerts, bad, good in _CASES
            for series, is_firing in [(bad, True), *((series, False) for series in good)]
        ]
        file = make_folder(self) / "test.yml"
        rules = {"rule_files": [str(_ALERTS)], "evaluation_interval": "1m", "tests": tests}
        file.write_text(json.dumps(rules))
        out, errors, status = await run_program("promtool", "test", "rules", str(file))
        self.assertEqual(status, 0, (out + errors).decode())

    def test_each_has_a_case(self) -> None:
        alerts = re.findall(r"alert: (\w+)", _ALERTS.read_text())
        self.assertEqual({name for its, _, _ in _CASES for name in its.split()}, {*alerts})

    def test_metrics_exist(self) -> None:
        self.assertEqual(metrics_in(_ALERTS.read_text()) - told(), set())


class DashboardTests(TestCase):
    async def test_promql(self) -> None:
        questions = [target["expr"] for panel in panels() for target in panel["targets"]]
        self.assertGreater(len(questions), 20)
        rules = [
            {
                "record": f"question:{number}",
                "expr": text.replace("$instance", ".*").replace("$__rate_interval", "5m"),
            }
            for number, text in enumerate(questions)
        ]
        file = make_folder(self) / "questions.yml"
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        _, errors, status = await run_program("promtool", "check", "rules", str(file))
        self.assertEqual((errors.decode(), status), ("", 0))


class LayoutTests(SynchronousTestCase):
    """The same file, without a program."""

    def test_metrics_exist(self) -> None:
        self.assertEqual(metrics_in(_DASHBOARD.read_text()) - told(), set())

    def test_panels(self) -> None:
        """Panels have numbers and questions of their own, lie within the grid, and not on each other."""
        found = panels()
        self.assertEqual(len({panel["id"] for panel in found}), len(found))
        taken: set[tuple[int, int]] = set()
        for panel in found:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            fields = set(
                itertools.product(
                    range(place["x"], place["x"] + place["w"]),
                    range(place["y"], place["y"] + place["h"]),
                )
            )
            self.assertEqual(fields & taken, set(), panel["title"])
            taken |= fields
            letters = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(set(letters)), len(letters))
            for target in panel["targets"]:
                self.assertEqual(target["datasource"]["uid"], "${datasource}")

    def test_data_source_and_instance_are_variables(self) -> None:
        variables = json.loads(_DASHBOARD.read_text())["templating"]["list"]
        self.assertEqual([one["name"] for one in variables], ["datasource", "instance"])
