"""Writes the alerts of ``examples/prometheus`` and their tests, from `txmux.telemetry.attention_rows`; ``docs/tables.py`` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from txmux.telemetry.attention import Alert
from txmux.telemetry.attention_rows import COMMON, DRAINED, FAULT, NOBODY, ROWS, SELF, UP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from txmux.telemetry.attention import AttentionRow

_FOLDER = Path(__file__).parent.parent / "examples/prometheus"

# fmt: off


def _first_byte(fast: int, slow: int) -> dict[str, str]:
    """So many answers a minute within 10 ms for 20 minutes, and then in 2 to 5 s."""
    after = {"0.01": 0, "2": 0, "5": slow, "+Inf": slow}
    counts = {bound: f"0+{fast}x20 {20 * fast}+{count}x40" for bound, count in after.items()}
    return {
        **{f'txmux_first_byte_seconds_bucket{{backend="b",le="{bound}"}}': count for bound, count in counts.items()},
        'txmux_first_byte_seconds_count{backend="b"}': counts["+Inf"],
    }


_RECOVERED = 'txmux_backend_checks_recovered_total{backend="b",server="s"}'
_REFUSED = 'txmux_widely_refused_per_second{listener="l",reason="%s"}'
_ACCEPTED = 'txmux_connections_total{listener="l"}'
_QUANTILE = "histogram_quantile(0.9, sum by (instance, backend, le) (rate(txmux_first_byte_seconds_bucket[%s)))"
_MANY = "3: those of the two busiest sources do not count"
BESIDE = (
    Alert(
        "TxmuxDown", "txmux on {{ $labels.instance }} does not answer",
        "`systemctl status txmux` and the service's log say whether it runs, and why not. If it runs, the endpoint of `metrics` cannot be reached, or needs the extra `admin`.",
        expr='up{job="txmux"} == 0', lasts="1m", severity="critical", runbook="it-does-not-start", sources=NOBODY,
        fires={'up{job="txmux"}': "0x60"}, quiet=({'up{job="txmux"}': "1x60"},)),
    Alert(
        "TxmuxChecksFail", "server {{ $labels.server }} of backend {{ $labels.backend }} is up, but some of its checks fail",
        "Again and again a check fails, and the next one succeeds. `txmux servers {{ $labels.backend }}` shows how long checks take: compare that with `timeout` of `check`, and look at the server's load.",
        expr="increase(txmux_backend_checks_recovered_total[15m]) >= 3\n"
             'and on (instance, backend, server) txmux_backend_server_state{state="up"} == 1',
        lasts="5m", severity="warning", runbook="a-server-is-down", sources=NOBODY,
        fires=UP | {_RECOVERED: "0+1x60"}, quiet=(DRAINED | {_RECOVERED: "0+1x60"}, UP | {_RECOVERED: "0x29 2x30"})),
    Alert(
        "TxmuxFirstByteSlow", "servers of backend {{ $labels.backend }} take {{ $value | humanizeDuration }} until their first byte",
        "A tenth of at least 20 clients wait that long or longer: more than a second, and three times as long as in the last day. They may be clients of one source. `txmux servers {{ $labels.backend }}` has the time of each server.",
        expr=f"{_QUANTILE % '10m]'} > 1\nand {_QUANTILE % '10m]'}\n> 3 * {_QUANTILE % '1d] offset 10m'}\n"
             "and sum by (instance, backend) (increase(txmux_first_byte_seconds_count[10m])) >= 20",
        lasts="5m", severity="info", runbook="it-is-slow", sources="1, of severity `info`",
        fires=_first_byte(10, 10), quiet=(_first_byte(10, 0), _first_byte(0, 10), _first_byte(10, 1))),
    Alert(
        "TxmuxWorkersCrash", "a worker of txmux on {{ $labels.instance }} was started again",
        "Its connections were lost. The service's log says how it ended: for lack of memory, by a signal, or by an error of txmux or a plugin, which is a fault to report.",
        expr="increase(txmux_worker_restarts_total[15m]) > 0", severity="warning", runbook="a-worker-was-started-again", sources=FAULT,
        fires={"txmux_worker_restarts_total": "0+1x60"}),
    Alert(
        "TxmuxClientsRefused", "listener {{ $labels.listener }} refuses clients of many sources for its limit {{ $labels.reason }}",
        "More than one a second, those of the two busiest sources not counted. `txmux clients` shows who they are: raise the limit if they are yours, ban them if they attack.",
        expr='txmux_widely_refused_per_second{reason!="no-route"} > 1', lasts="5m", severity="warning", runbook="a-client-is-refused", sources=_MANY,
        fires={_REFUSED % "max_connections": "3x60"}, quiet=({_REFUSED % "rate": "0.5x60"},)),
    Alert(
        "TxmuxManyBans", "txmux on {{ $labels.instance }} has {{ $value }} bans, of 100,000 that it takes",
        "`txmux bans` lists them. Ban networks instead of addresses, or for a shorter time, or use a file of networks.",
        expr="txmux_bans > 80000", lasts="5m", severity="warning", runbook=SELF, sources=NOBODY,
        fires={"txmux_bans": "90000x60"}, quiet=({"txmux_bans": "500x60"},)),
    Alert(
        "TxmuxNoRoute", "no route takes a fifth of the clients of listener {{ $labels.listener }}",
        "They are of many sources. *Unrecognised* on the page has their first bytes, and `txmux explain` says why no route takes them; `txmux status` shows whether the rules were changed.",
        expr='txmux_widely_refused_per_second{reason="no-route"} > 0.1\n'
             'and on (instance, listener) txmux_widely_refused_per_second{reason="no-route"}\n'
             "> on (instance, listener) 0.2 * sum by (instance, listener) (rate(txmux_connections_total[15m]))",
        lasts="15m", severity="info", runbook="a-client-is-refused", sources=_MANY,
        fires={_REFUSED % "no-route": "0.15x60", _ACCEPTED: "0+18x60"},
        quiet=({_REFUSED % "no-route": "0.15x60", _ACCEPTED: "0+90x60"}, {_REFUSED % "no-route": "0.02x60", _ACCEPTED: "0+2x60"})),
)
"""Alerts for what no item is about."""
# fmt: on


def alerts_of(row: AttentionRow) -> tuple[Alert, ...]:
    """Return those of its level."""
    alerts = () if isinstance(row.alerts, str) else row.alerts
    return tuple(one for one in alerts if one.severity in {"", row.level})


def _alerts() -> dict[tuple[str, str], tuple[Alert, ...]]:
    """Return the alerts of each topic and level, which are what Prometheus knows of an item."""
    found: dict[tuple[str, str], tuple[Alert, ...]] = {}
    for row in ROWS:
        its, where = alerts_of(row), f"{row.what}, {row.level}"
        if not its and not isinstance(row.alerts, str):
            raise ValueError(f"{where}: say in `alerts` why none fires: {row.text}")
        if found.setdefault((row.what, row.level), its) != its:
            raise ValueError(f"{where}: two kinds of alerts, of which one is for: {row.text}")
    return found


_ALERTS = _alerts()
_RULES = {
    **{(one, one.severity): one.runbook for one in COMMON},
    **{(one, row.level): one.runbook or row.runbook for row in ROWS for one in alerts_of(row)},
    **{(one, one.severity): one.runbook for one in BESIDE},
}
"""By alert and severity, the heading of the troubleshooting page."""


def _count(what: str, level: str) -> str:
    return f'txmux_attention{{level="{level}",what="{what}"}}'


def _items(alert: Alert, level: str) -> list[str]:
    return [_count(*pair) for pair, its in _ALERTS.items() if alert in its and pair[1] == level]


def _expr(alert: Alert, level: str) -> str:
    if alert not in COMMON:
        return alert.expr or "\nor ".join(f"{count} > 0" for count in _items(alert, level))
    others = {pair: its for pair, its in _ALERTS.items() if pair[1] == level and alert not in its}
    names = "|".join(sorted(what for what, _ in others))
    lines = [f'txmux_attention{{level="{level}",what!~"{names}"}} > 0']
    for pair, its in others.items():
        exprs = [one.expr.replace("\n", " ") for one in its if one.expr]
        lines += [f"or {_count(*pair)} > 0"] * bool(exprs)
        lines += [f"unless on (instance) ({expr})" for expr in exprs]
    return "\n".join(lines)


def rules(page: str) -> str:
    """Write the alerts."""
    head, there, _ = page.partition("    rules:\n")
    return head + there + "".join(_rule(*key, book) for key, book in _RULES.items())


def _rule(alert: Alert, severity: str, runbook: str) -> str:
    expr = _expr(alert, severity)
    if "\n" in expr:
        expr = ">-" + f"\n{expr}".replace("\n", f"\n{10 * ' '}")
    lasts = f"        for: {alert.lasts}\n" if alert.lasts else ""
    return f"""\
      - alert: {alert.name}
        expr: {expr}
{lasts}        labels: {{severity: {severity}}}
        annotations:
          summary: {json.dumps(alert.summary)}
          description: {json.dumps(alert.description)}
          runbook_url: docs/how-to/troubleshooting.md#{runbook}
"""


def tests(page: str) -> str:
    """Write for which series, each case of another instance, an alert fires: whatever item there is, one of its level does."""
    cases: dict[str, Mapping[str, str]] = {
        "no alert": {_count(*pair): f"{not its:d}x60" for pair, its in _ALERTS.items()}
    }
    fired: list[tuple[str, str, str]] = []
    for (what, level), its in _ALERTS.items():
        cases[f"{what} {level}"] = {_count(what, level): "1x60"}
        shown = [one for one in its if not one.expr] or [
            one for one in COMMON if one.severity == level
        ]
        fired += [(f"{what} {level}", one.name, level) for one in shown]
    for alert, level in _RULES:
        if alert.expr:
            cases[alert.name] = {**alert.fires, **dict.fromkeys(_items(alert, level), "1x60")}
            cases |= {f"no {alert.name} {number}": its for number, its in enumerate(alert.quiet)}
            fired.append((alert.name, alert.name, level))
    head, there, _ = page.partition("tests:\n")
    series = "".join(f"      {', '.join(_given(*case))},\n" for case in cases.items())
    samples = [
        {"labels": f'{{alertname="{name}",instance="{case}",severity="{level}"}}', "value": 1}
        for case, name, level in fired
    ]
    return f"""\
{head}{there}  - interval: 1m
    input_series: [
{series}      ]
    promql_expr_test:
      - expr: count by (alertname, instance, severity) (ALERTS{{alertstate="firing"}})
        eval_time: 30m
        exp_samples: {json.dumps(samples)}
"""


def _given(instance: str, series: Mapping[str, str]) -> Iterator[str]:
    for text, values in series.items():
        name, _, labels = text.rstrip("}").partition("{")
        its = ",".join(filter(None, [f'instance="{instance}"', labels]))
        yield json.dumps({"series": f"{name}{{{its}}}", "values": values})


PAGES = {_FOLDER / "txmux.rules.yml": rules, _FOLDER / "txmux.rules.test.yml": tests}
