"""The alerts and the dashboard of the examples ask for what there is."""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.programs import run_program
from tests.support.folders import make_folder
from txmux.telemetry.attention_rows import every_row

_ROOT = Path(__file__).parent.parent
_ALERTS = _ROOT / "examples" / "prometheus" / "txmux.rules.yml"
_TESTS = _ALERTS.with_suffix(".test.yml")
_FIRING = 'sort_desc(count by (alertname) (ALERTS{alertstate="firing"}))'
_DASHBOARD = _ROOT / "examples" / "grafana" / "txmux.json"


def metrics_in(text: str) -> set[str]:
    found = set(re.findall(r"\btxmux_[a-z_]+", text))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text())["panels"]
    return found


_DAY = 86400
_EXPIRY = 'txmux_certificate_expiry_timestamp_seconds{file="f",route="r"}'
_ACME_EXPIRY = 'txmux_certificate_expiry_timestamp_seconds{file="/acme/a.example.pem",route="r"}'
_ACME_LEFT = 'txmux_certificate_expires_seconds{name="a.example"}'
_ACCEPTED = 'txmux_connections_total{listener="l"}'
_REFUSED = 'txmux_widely_refused_per_second{listener="l",reason="%s"}'
_CERTIFICATE_ITEMS = [
    f'txmux_attention{{level="warning",what="{what}"}}' for what in ("certificates", "renewal")
]
_CERTIFICATE_ALERTS = "TxmuxCertificateEnds", "TxmuxCertificateUnusable"

_NIGHT = range(900, 1200)
_SCRAPES = 2  # minutes between two of them


def _per_minute(value: Callable[[int], object]) -> str:
    return " ".join(str(value(minute)) for minute in range(0, _DAY // 60, _SCRAPES))


def _grown(rate: Callable[[int], int], *restarts: int) -> str:
    """Write a counter that grows by so much in each minute, and begins anew at some."""
    total, values = 0, []
    for minute in range(_DAY // 60):
        total = rate(minute) + (0 if minute in restarts else total)
        values.append(total)
    return " ".join(map(str, values[::_SCRAPES]))


def _slow_answers_at_night(restart: int) -> dict[str, str]:
    def answers(minute: int, *, is_slow: bool) -> int:
        return (minute in (950, 951, 952)) * is_slow + (0 if minute in _NIGHT else 600)

    name = 'txmux_first_byte_seconds_%s{backend="b"%s}'
    fast, every = (_grown(partial(answers, is_slow=is_slow), restart) for is_slow in (False, True))
    buckets = {"0.01": fast, "2": fast, "5": every, "+Inf": every}
    series = {name % ("bucket", f',le="{bound}"'): count for bound, count in buckets.items()}
    return {**series, name % ("count", ""): every}


def _states(key: str, states: Sequence[str]) -> dict[str, str]:
    def where(*names: str) -> str:
        return _per_minute(lambda minute: int(states[minute] in names))

    return {
        f"txmux_backend_server_up{{{key}}}": where("up", "drain"),
        **{
            f'txmux_backend_server_state{{{key},state="{name}"}}': where(name).replace("0", "stale")
            for name in ("up", "down", "drain")
        },
    }


def day_of_planned_work() -> dict[str, str]:
    """Write a day in which nothing happens but what was planned, and what one client does.

    =====  ============================================================================================
    60     `s` is drained for an hour, and restarted twice
    200    `t` is restarted, so that its checks fail for two minutes, and are too slow once, before
    300    the service is restarted: no answer to one scrape
    400    a reload
    500    an upgrade; some connections stay in the old process for half an hour
    600    certificates are renewed: one of a file, and one by ACME that lasts six days
    700    the backend `old` has been taken out of all routes, and its server is down for a while
    900    the night: no clients but a scanner, and another one that is refused at a limit all the time;
           three requests are answered slowly
    =====  ============================================================================================
    """
    restart = 300

    def state(name: str, minute: int) -> str:
        if name == "s":
            return "drain" if 60 <= minute < 120 else "up"
        is_down = minute in (200, 201) if name == "t" else 700 <= minute < 705
        return "down" if is_down else "up"

    def failing(name: str, minute: int) -> int:
        """Return how many checks fail in a minute: 20 are made."""
        is_away = minute in (70, 71, 90) if name == "s" else state(name, minute) == "down"
        return 20 if is_away else 1 if (name, minute) == ("t", 190) else 0

    series = {'up{job="txmux"}': _per_minute(lambda minute: int(minute != restart))}
    for backend, name in (("b", "s"), ("b", "t"), ("old", "o")):
        states = [state(name, minute) for minute in range(_DAY // 60)]
        failures = [failing(name, minute) for minute in range(_DAY // 60)]
        series |= _states(f'backend="{backend}",server="{name}"', states)
        key = f'{{backend="{backend}",server="{name}"}}'
        series[f"txmux_backend_checks_failed_total{key}"] = _grown(failures.__getitem__, restart)
        recovered = [int((name, minute) == ("t", 191)) for minute in range(_DAY // 60)]
        grown = _grown(recovered.__getitem__, restart)
        series[f"txmux_backend_checks_recovered_total{key}"] = grown

    def has(*minutes: range) -> str:
        return _per_minute(lambda minute: int(any(minute in some for some in minutes)))

    items = {
        ("backend", "warning"): (range(200, 202), range(700, 705)), ("backend", "critical"): (),
        ("service", "note"): (range(299, 300),), ("upgrade", "note"): (range(500, 530),),
        ("upgrade", "warning"): (), ("limits", "note"): (_NIGHT,),
        ("accept", "note"): (range(1000, 1010),),
    }  # fmt: skip
    for (what, level), minutes in items.items():
        series[f'txmux_attention{{level="{level}",what="{what}"}}'] = has(*minutes)
    series[_ACCEPTED] = _grown(lambda minute: 6 if minute in _NIGHT else 600, restart)
    for reason in ("max_connections_per_source", "no-route"):
        series[_REFUSED % reason] = _per_minute(lambda _: 0)  # of one source each
    series |= _slow_answers_at_night(restart)
    series[_EXPIRY] = _per_minute(lambda minute: (15 if minute < 600 else 90) * _DAY)
    left = [60 * (2 * _DAY // 60 + 600 - minute) for minute in range(600)]
    series[_ACME_LEFT] = _per_minute(lambda minute: left[minute] if minute < 600 else 6 * _DAY)
    series[_ACME_EXPIRY] = _per_minute(lambda minute: 36000 + (2 if minute < 600 else 6) * _DAY)
    series |= {
        "txmux_reload_success": _per_minute(lambda _: 1),
        "txmux_worker_restarts_total": _per_minute(lambda _: 0),
        "txmux_access_log_lost_total": _per_minute(lambda _: 0),
        "txmux_open_descriptors": _per_minute(lambda minute: 20 + 10 * (500 <= minute < 530)),
        "txmux_bans": _per_minute(lambda minute: minute),
        'txmux_source_up{source="bans redis.example"}': _per_minute(lambda m: int(m != restart)),
    }
    return series


def asked(given: dict[str, str], expr: str, when: str, *alerts: str) -> dict[str, Any]:
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts]
    return {
        "interval": f"{_SCRAPES}m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": when, "exp_samples": samples}],
    }


class AlertTests(TestCase):
    async def test_fire(self) -> None:
        out, errors, status = await run_program("promtool", "check", "rules", str(_ALERTS))
        self.assertEqual((errors, status), (b"", 0))
        self.assertIn(b"SUCCESS", out)
        # Each alert comes for the series that it is for, and for no others; each item has one of its level.
        out, errors, status = await run_program("promtool", "test", "rules", str(_TESTS))
        self.assertEqual(status, 0, (out + errors).decode())
        # No alert fires, nor is one about to for longer than it takes to see that it need not.
        day, fired = day_of_planned_work(), 'count_over_time(ALERTS{alertstate="firing"}[1d])'
        ends = {_EXPIRY: f"{10 * _DAY}x60"} | dict.fromkeys(_CERTIFICATE_ITEMS, "1x60")
        file = make_folder(self) / "test.yml"
        tests = [asked(day, fired, "1438m"), asked(ends, _FIRING, "30m", *_CERTIFICATE_ALERTS)]
        every = {"evaluation_interval": f"{_SCRAPES}m"}
        file.write_text(json.dumps({"rule_files": [str(_ALERTS)], "tests": tests, **every}))
        out, errors, status = await run_program("promtool", "test", "rules", str(file))
        self.assertEqual(status, 0, (out + errors).decode())

    def test_each_says_what_to_look_at(self) -> None:
        # Each alert and each item leads to a heading of the page for that, and to no other's.
        text = _ALERTS.read_text()
        count = text.count("- alert: ")
        described = r'(?m)^          description: "[A-Z`*].{60,}[.]"$'
        self.assertEqual(len(re.findall(described, text)), count)
        runbooks = re.findall(r"^          runbook_url: (\S+)#(\S+)$", text, re.MULTILINE)
        self.assertEqual(len(runbooks), count)
        runbooks += [("docs/how-to/troubleshooting.md", row.runbook) for row in every_row()]
        for page, heading in runbooks:
            headings = re.findall(r"^#+ (.*)$", (_ROOT / page).read_text(), re.MULTILINE)
            anchors = (re.sub(r"[^a-z0-9 -]", "", one.lower()) for one in headings)
            self.assertIn(heading, {one.replace(" ", "-") for one in anchors})
        # Each has a case, and metrics that there are.
        alerts = re.findall(r"alert: (\w+)", _ALERTS.read_text())
        self.assertEqual({*re.findall(r'alertname=\\"(\w+)', _TESTS.read_text())}, {*alerts})
        told = re.findall(r"`(txmux_[a-z_]+)`", (_ROOT / "docs/reference/metrics.md").read_text())
        for file in (_ALERTS, _DASHBOARD):
            self.assertEqual(metrics_in(file.read_text()) - {*told}, set(), file)

    async def test_dashboard_promql(self) -> None:
        questions = [target["expr"] for panel in panels() for target in panel["targets"]]
        self.assertGreater(len(questions), 20)
        texts = (one.replace("$instance", ".*") for one in questions)
        rules = [
            {"record": f"question:{number}", "expr": text.replace("$__rate_interval", "5m")}
            for number, text in enumerate(texts)
        ]
        file = make_folder(self) / "questions.yml"
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        _, errors, status = await run_program("promtool", "check", "rules", str(file))
        self.assertEqual((errors.decode(), status), ("", 0))

    def test_panels(self) -> None:
        # Panels have numbers and questions of their own, lie within the grid, and not on each other.
        found = panels()
        self.assertEqual(len({panel["id"] for panel in found}), len(found))
        taken: set[tuple[int, int]] = set()
        for panel in found:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            across = range(place["x"], place["x"] + place["w"])
            fields = {*itertools.product(across, range(place["y"], place["y"] + place["h"]))}
            self.assertEqual(fields & taken, set(), panel["title"])
            taken |= fields
            letters = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(set(letters)), len(letters))
            for target in panel["targets"]:
                self.assertEqual(target["datasource"]["uid"], "${datasource}")
        # The data source and the instance are variables.
        variables = json.loads(_DASHBOARD.read_text())["templating"]["list"]
        self.assertEqual([one["name"] for one in variables], ["datasource", "instance"])
