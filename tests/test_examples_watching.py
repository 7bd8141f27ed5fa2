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


class AlertTests(TestCase):
    async def test_promtool(self) -> None:
        out, errors, status = await run_program("promtool", "check", "rules", str(_ALERTS))
        self.assertEqual((errors, status), (b"", 0))
        self.assertIn(b"SUCCESS", out)

    async def test_fire(self) -> None:
        """Alerts come when there is no server, a reload failed, descriptors are short and a certificate ends, and not otherwise."""
        cases: dict[str, tuple[str, int | str, int | str]] = {
            "TxmuxBackendWithoutServer": ('txmux_backend_server_up{backend="b",server="s"}', 0, 1),
            "TxmuxReloadFailed": ("txmux_reload_success", 0, 1),
            "TxmuxSourceFails": ('txmux_source_up{source="s"}', 0, 1),
            "TxmuxNotShared": ("txmux_cluster_up", 0, 1),
            "TxmuxLogLinesLost": ("txmux_access_log_lost_total", "0+9", "9+0"),
            "TxmuxDescriptorsShort": ("txmux_open_descriptors", 95, 20),
            "TxmuxCertificateEnds": (
                'txmux_certificate_expiry_timestamp_seconds{route="r",file="f"}',
                10 * 86400,
                90 * 86400,
            ),
        }
        for alert, (series, bad, good) in cases.items():
            for value, count in ((bad, 1), (good, 0)):
                text = self.unit_test(alert, series, value, count)
                file = make_folder(self) / "test.yml"
                file.write_text(text)
                out, errors, status = await run_program("promtool", "test", "rules", str(file))
                self.assertEqual(status, 0, (alert, value, out.decode(), errors.decode()))

    @staticmethod
    def unit_test(alert: str, series: str, value: int | str, count: int) -> str:
        expression = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
        quoted = json.dumps(series)
        return "\n".join(
            [
                f"rule_files: [{_ALERTS}]", "evaluation_interval: 1m", "tests:", "  - interval: 1m",
                "    input_series:", f"      - {{series: {quoted}, values: '{value}x20'}}",
                "      - {series: txmux_max_descriptors, values: '100x20'}",
                "    promql_expr_test:", f"      - expr: {json.dumps(expression)}",
                "        eval_time: 15m", f"        exp_samples: [{{value: {count}}}]", "",
            ]
        )  # fmt: skip

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
