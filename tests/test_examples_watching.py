"""The alerts and the dashboard of the examples ask for what there is."""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
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
    counts = {bound: f"0+{fast}x20 {20 * fast}+{count}x40" for bound, count in after.items()}
    series = {f'{name}{{backend="b",le="{bound}"}}': count for bound, count in counts.items()}
    return {**series, 'txmux_first_byte_seconds_count{backend="b"}': counts["+Inf"]}


_DAY = 86400
_UP, _WELL = server("up", up=True), server("up", up=True, name="t")
_DRAINED = server("drain", up=True)
_EXPIRY = 'txmux_certificate_expiry_timestamp_seconds{file="f",route="r"}'
_ACME_EXPIRY = 'txmux_certificate_expiry_timestamp_seconds{file="/acme/a.example.pem",route="r"}'
_ACME_LEFT = 'txmux_certificate_expires_seconds{name="a.example"}'
_RECOVERED = 'txmux_backend_checks_recovered_total{backend="b",server="s"}'
_ACCEPTED = 'txmux_connections_total{listener="l"}'
_REFUSED = 'txmux_widely_refused_per_second{listener="l",reason="%s"}'
_TURNS_AWAY = {'txmux_backend_attention{backend="b",level="critical"}': "1x60"}

_CASES: list[tuple[str, Series, list[Series]]] = [
    ("TxmuxDown", {'up{job="txmux"}': "0x60"}, [{'up{job="txmux"}': "1x60"}]),
    (
        "TxmuxAttentionCritical",
        attention("workers", "critical"),
        [attention("workers", "critical", 0), attention("limits", "note")],
    ),
    ("TxmuxAttention", attention("upgrade"), [attention("upgrade", count=0)]),
    ("TxmuxHelperEnded", attention("helper", "critical"), []),
    ("TxmuxCannotAccept", attention("accept", "critical"), [attention("accept", "note")]),
    ("TxmuxNoSourcePort", attention("ports", "critical"), []),
    (
        "TxmuxBackendWithoutServer",
        server("down", up=False) | server("silent", up=False, name="t") | _TURNS_AWAY,
        [_UP, _DRAINED, server("maintenance", up=True)],
    ),
    ("TxmuxServerFailing", _WELL | server("silent", up=False), [_UP, _WELL | _DRAINED]),
    # No route needs it, or its clients go to a fallback, or wait.
    ("TxmuxServerDown", server("down", up=False), [_WELL | _DRAINED]),
    (
        "TxmuxChecksFail",
        _UP | {_RECOVERED: "0+1x60"},
        [_DRAINED | {_RECOVERED: "0+1x60"}, _UP | {_RECOVERED: "0x29 2x30"}],
    ),
    (
        "TxmuxFirstByteSlow",
        first_byte(10, 10),
        [first_byte(10, 0), first_byte(0, 10), first_byte(10, 1)],
    ),
    ("TxmuxReloadFailed", {"txmux_reload_success": "0x60"}, [{"txmux_reload_success": "1x60"}]),
    (
        "TxmuxDescriptorsShort",
        {"txmux_open_descriptors": "95x60"},
        [{"txmux_open_descriptors": "20x60"}],
    ),
    ("TxmuxCertificateEnded", {_EXPIRY: "600x60"}, [{_EXPIRY: f"{90 * _DAY}x60"}]),
    (
        "TxmuxCertificateEnds",
        {_EXPIRY: f"{10 * _DAY}x60"},
        [
            {_EXPIRY: f"{90 * _DAY}x60"},
            {_ACME_EXPIRY: f"{5 * _DAY}x60", _ACME_LEFT: f"{5 * _DAY}x60"},
        ],
    ),
    ("TxmuxCertificateUnusable", attention("renewal"), []),
    (
        "TxmuxCertificateEnds TxmuxCertificateUnusable",
        {_EXPIRY: f"{10 * _DAY}x60"} | attention("certificates") | attention("renewal"),
        [],
    ),
    (
        "TxmuxSourceFails",
        # One for all that Redis is asked for.
        {
            f'txmux_source_up{{source="{kind} redis.example:6379"}}': "0x60"
            for kind in ("bans", "limits")
        }
        | {"txmux_cluster_up": "0x60"}
        | attention("sources", count=2),
        [{'txmux_source_up{source="bans s"}': "1x60"}],
    ),
    ("TxmuxWorkersCrash", {"txmux_worker_restarts_total": "0+1x60"}, []),
    (
        "TxmuxLogLinesLost",
        {"txmux_access_log_lost_total": "0+9x60"},
        [{"txmux_access_log_lost_total": "9x60"}],
    ),
    (
        "TxmuxClientsRefused",
        {_REFUSED % "max_connections": "3x60"},
        [{_REFUSED % "rate": "0.5x60"}],
    ),
    ("TxmuxManyBans", {"txmux_bans": "90000x60"}, [{"txmux_bans": "500x60"}]),
    (
        "TxmuxNoRoute",
        {_REFUSED % "no-route": "0.15x60", _ACCEPTED: "0+18x60"},
        [
            {_REFUSED % "no-route": "0.15x60", _ACCEPTED: "0+90x60"},
            {_REFUSED % "no-route": "0.02x60", _ACCEPTED: "0+2x60"},
        ],
    ),
]
"""Alerts, with series for which they fire and no others, and series for which none does."""


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


def _slow_answers_at_night(restart: int) -> Series:
    def answers(minute: int, *, is_slow: bool) -> int:
        return (minute in (950, 951, 952)) * is_slow + (0 if minute in _NIGHT else 600)

    name = 'txmux_first_byte_seconds_%s{backend="b"%s}'
    fast, every = (_grown(partial(answers, is_slow=is_slow), restart) for is_slow in (False, True))
    buckets = {"0.01": fast, "2": fast, "5": every, "+Inf": every}
    series = {name % ("bucket", f',le="{bound}"'): count for bound, count in buckets.items()}
    return {**series, name % ("count", ""): every}


def _states(key: str, states: Sequence[str]) -> Series:
    def where(*names: str) -> str:
        return _per_minute(lambda minute: int(states[minute] in names))

    return {
        f"txmux_backend_server_up{{{key}}}": where("up", "drain"),
        **{
            f'txmux_backend_server_state{{{key},state="{name}"}}': where(name).replace("0", "stale")
            for name in ("up", "down", "drain")
        },
    }


def day_of_planned_work() -> Series:
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
        series[f"txmux_backend_checks_recovered_total{key}"] = _grown(
            recovered.__getitem__, restart
        )

    def has(*minutes: range) -> str:
        return _per_minute(lambda minute: int(any(minute in some for some in minutes)))

    items = {
        ("backend", "warning"): (range(200, 202), range(700, 705)),
        ("backend", "critical"): (),
        ("service", "note"): (range(299, 300),),
        ("upgrade", "note"): (range(500, 530),),
        ("upgrade", "warning"): (),
        ("limits", "note"): (_NIGHT,),
        ("accept", "note"): (range(1000, 1010),),
    }
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
        await self.check(tests)

    async def test_day_of_planned_work(self) -> None:
        """No alert fires, nor is one about to for longer than it takes to see that it need not."""
        series = {**day_of_planned_work(), "txmux_max_descriptors": _per_minute(lambda _: 100)}
        fired = 'count_over_time(ALERTS{alertstate="firing"}[1d])'
        await self.check(
            [
                {
                    "name": "a day of planned work",
                    "interval": f"{_SCRAPES}m",
                    "input_series": [
                        {"series": name, "values": values} for name, values in series.items()
                    ],
                    "promql_expr_test": [{"expr": fired, "eval_time": "1438m", "exp_samples": []}],
                }
            ],
            every=_SCRAPES,
        )

    async def check(self, tests: list[dict[str, Any]], *, every: int = 1) -> None:
        file = make_folder(self) / "test.yml"
        rules = {"rule_files": [str(_ALERTS)], "evaluation_interval": f"{every}m", "tests": tests}
        file.write_text(json.dumps(rules))
        out, errors, status = await run_program("promtool", "test", "rules", str(file))
        self.assertEqual(status, 0, (out + errors).decode())

    def test_each_says_what_to_look_at(self) -> None:
        """Each leads to a heading of the page for that, and to no other's."""
        text = _ALERTS.read_text()
        count = text.count("- alert: ")
        self.assertEqual(
            len(re.findall(r'^          description: "[A-Z`*].{60,}[.]"$', text, re.MULTILINE)),
            count,
        )
        runbooks = re.findall(r"^          runbook_url: (\S+)#(\S+)$", text, re.MULTILINE)
        self.assertEqual(len(runbooks), count)
        for page, heading in runbooks:
            headings = re.findall(r"^#+ (.*)$", (_ROOT / page).read_text(), re.MULTILINE)
            anchors = {
                re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings
            }
            self.assertIn(heading, anchors)

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
