"""Writes the alerts of ``examples/prometheus`` and their tests, from `txmux.telemetry.attention_rows`; ``docs/tables.py`` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from txmux.telemetry.attention_rows import COMMON, FAULT, NO_SOURCE, SELF, every_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from txmux.telemetry.attention import AttentionRow

_FOLDER = Path(__file__).parent.parent / "examples/prometheus"


@attrs.frozen(eq=False)
class Alert:
    """An alert for items, or for what no item is about, which then has a severity and `sources`.

    Attributes:
        expr: In PromQL; empty for the number of its items, as ``txmux_attention`` has it.
        lasts: For how long it has to be so, as in ``5m``.
        severity: If it is only for items of this level; empty for the level of each.
        runbook: The heading of the troubleshooting page, unless it is that of its items.
        fires: Series for which it fires, by their names, with values as promtool has them.
        quiet: Series for each of which no alert fires.
    """

    name: str
    summary: str
    description: str
    expr: str = ""
    lasts: str = ""
    severity: str = ""
    runbook: str = ""
    sources: str = ""
    fires: Mapping[str, str] = attrs.field(factory=dict)
    quiet: Sequence[Mapping[str, str]] = ()


# fmt: off


def _server(state: str, name: str = "s", *, up: bool = False) -> dict[str, str]:
    key = f'backend="b",server="{name}"'
    return {f"txmux_backend_server_up{{{key}}}": f"{up:d}x60", f'txmux_backend_server_state{{{key},state="{state}"}}': "1x60"}


_UP, _OTHER, _DRAINED = _server("up", up=True), _server("up", "t", up=True), _server("drain", up=True)


def _first_byte(fast: int, slow: int) -> dict[str, str]:
    """So many answers a minute within 10 ms for 20 minutes, and then in 2 to 5 s."""
    after = {"0.01": 0, "2": 0, "5": slow, "+Inf": slow}
    counts = {bound: f"0+{fast}x20 {20 * fast}+{count}x40" for bound, count in after.items()}
    return {
        **{f'txmux_first_byte_seconds_bucket{{backend="b",le="{bound}"}}': count for bound, count in counts.items()},
        'txmux_first_byte_seconds_count{backend="b"}': counts["+Inf"],
    }


_STATUS = "`txmux status` says what is wrong, with its newest cause, since when, and what to do about it."
_DAY = 86400
_EXPIRY = 'txmux_certificate_expiry_timestamp_seconds{file="%s",route="r"}'
OF_ITEMS = (
    Alert("TxmuxAttentionCritical", "txmux on {{ $labels.instance }} turns clients away or loses them: {{ $labels.what }}", _STATUS,
        lasts="30s", severity="critical", runbook=SELF),
    Alert("TxmuxAttention", "txmux on {{ $labels.instance }} needs attention: {{ $labels.what }}", _STATUS,
        lasts="5m", severity="warning", runbook=SELF),
    Alert(
        "TxmuxBackendWithoutServer", "backend {{ $labels.backend }} has no server that is up, and turns clients away",
        "`txmux servers {{ $labels.backend }}` says of each server why it is not up, and since when.", expr='txmux_backend_attention{level="critical"} == 1', lasts="1m",
        fires=_server("down") | _server("silent", "t") | {'txmux_backend_attention{backend="b",level="critical"}': "1x60"},
        quiet=(_UP, _DRAINED, _server("maintenance", up=True))),
    Alert(
        "TxmuxServerFailing", "server {{ $labels.server }} of backend {{ $labels.backend }} is {{ $labels.state }}",
        "Failing: connections to it fail. Silent: it accepts clients of several sources, and answers none. `txmux servers {{ $labels.backend }}` has the cause; connect to it from this machine.",
        expr='txmux_backend_server_state{state=~"failing|silent"} == 1\n'
             'unless on (instance, backend) txmux_backend_attention{level="critical"}', lasts="1m",
        fires=_OTHER | _server("silent"), quiet=(_UP, _OTHER | _DRAINED)),
    Alert(
        "TxmuxServerDown", "server {{ $labels.server }} of backend {{ $labels.backend }} is not up",
        "`txmux servers {{ $labels.backend }}` says why: its checks fail, its name has no address, or it was ejected.",
        expr="txmux_backend_server_up == 0\n"
             'unless on (instance, backend, server) txmux_backend_server_state{state=~"failing|silent"} == 1\n'
             'unless on (instance, backend) txmux_backend_attention{level="critical"}', lasts="10m",
        # No route needs it, or its clients go to a fallback, or wait.
        fires=_server("down"), quiet=(_OTHER | _DRAINED,)),
    Alert(
        "TxmuxCannotAccept", "txmux on {{ $labels.instance }} cannot accept clients",
        "A listener lacks descriptors or memory for them, or its socket could not be opened. `txmux status` says which, and why; `txmux clients` shows who has the most connections."),
    Alert(
        "TxmuxNoSourcePort", "txmux on {{ $labels.instance }} has no source port left towards a server",
        "`txmux status` names the server. Give the backend more addresses by `source`, or widen net.ipv4.ip_local_port_range; `txmux clients` shows who has the most connections."),
    Alert(
        "TxmuxDescriptorsShort", "txmux on {{ $labels.instance }} has few descriptors left",
        "When there is none, clients wait to be accepted. Raise LimitNOFILE=, or lower max_connections; `txmux clients` shows who has the most connections.", lasts="2m"),
    Alert(
        "TxmuxHelperEnded", "the helper of txmux on {{ $labels.instance }} has ended, or is halted",
        "Clients are served, but no reload, upgrade or change of a certificate is possible, and the service stops if a worker ends. `txmux status` says what to do; restart the service when that suits you."),
    Alert(
        "TxmuxLogLinesLost", "txmux on {{ $labels.instance }} could not write lines of its logs",
        "The disk is full, or what reads the log is too slow. `txmux status` says which log, how many lines, and why.", expr="increase(txmux_access_log_lost_total[15m]) > 0",
        fires={"txmux_access_log_lost_total": "0+9x60"}, quiet=({"txmux_access_log_lost_total": "9x60"},)),
    Alert(
        "TxmuxSourceFails", "txmux on {{ $labels.instance }} gets no good answer from {{ $labels.address }}",
        "`txmux status` says for what it is asked, why there is no good answer, and what does not work meanwhile: without Redis, limits and bans apply to this machine alone.",
        expr='min by (instance, address) (label_replace(txmux_source_up, "address", "$1", "source", "[^ ]+ (.*)")) == 0', lasts="1m",
        # One for all that Redis is asked for.
        fires={**{f'txmux_source_up{{source="{kind} redis.example:6379"}}': "0x60" for kind in ("bans", "limits")}, "txmux_cluster_up": "0x60"},
        quiet=({'txmux_source_up{source="bans s"}': "1x60"},)),
    Alert(
        "TxmuxCertificateEnded", "certificate {{ $labels.file }} of route {{ $labels.route }} has ended",
        "Clients refuse it. Put a new one into the file, which is read by itself; `txmux certificates` shows those in use, and `txmux status` why one by ACME was not renewed.",
        expr="txmux_certificate_expiry_timestamp_seconds <= time()", fires={_EXPIRY % "f": "600x60"}, quiet=({_EXPIRY % "f": f"{90 * _DAY}x60"},)),
    Alert(
        "TxmuxCertificateEnds", "certificate {{ $labels.file }} of route {{ $labels.route }} ends in {{ $value | humanizeDuration }}",
        "Put a new one into the file, which is read by itself; `txmux certificates` shows those in use. Of those by ACME, TxmuxCertificateUnusable says if they cannot be renewed.",
        expr='label_replace(txmux_certificate_expiry_timestamp_seconds, "name", "$1", "file", ".*/(.+)[.]pem") - time() < 14 * 86400 > 0\n'
             "unless on (instance, name) txmux_certificate_expires_seconds",
        fires={_EXPIRY % "f": f"{10 * _DAY}x60"},
        quiet=({_EXPIRY % "f": f"{90 * _DAY}x60"}, {_EXPIRY % "/acme/a.example.pem": f"{5 * _DAY}x60", 'txmux_certificate_expires_seconds{name="a.example"}': f"{5 * _DAY}x60"})),
    Alert(
        "TxmuxCertificateUnusable", "a certificate or key of txmux on {{ $labels.instance }} cannot be read or renewed",
        "Clients get the one in use until it ends. `txmux status` says which, and why.", lasts="5m"),
    Alert(
        "TxmuxReloadFailed", "the rules of txmux on {{ $labels.instance }} could not be reloaded",
        "The previous rules are in force. `txmux status` has the first reason, and the service's log all of them; what is not in the files, such as a port that another program has, `txmux check` does not find."),
)
"""Alerts for items, by the rows that name them."""

_RECOVERED = 'txmux_backend_checks_recovered_total{backend="b",server="s"}'
_REFUSED = 'txmux_widely_refused_per_second{listener="l",reason="%s"}'
_ACCEPTED = 'txmux_connections_total{listener="l"}'
_QUANTILE = "histogram_quantile(0.9, sum by (instance, backend, le) (rate(txmux_first_byte_seconds_bucket[%s)))"
_MANY = "3: those of the two busiest sources do not count"
BESIDE = (
    Alert(
        "TxmuxDown", "txmux on {{ $labels.instance }} does not answer",
        "`systemctl status txmux` and the service's log say whether it runs, and why not. If it runs, the endpoint of `metrics` cannot be reached, or needs the extra `admin`.",
        expr='up{job="txmux"} == 0', lasts="1m", severity="critical", runbook="it-does-not-start", sources=NO_SOURCE,
        fires={'up{job="txmux"}': "0x60"}, quiet=({'up{job="txmux"}': "1x60"},)),
    Alert(
        "TxmuxChecksFail", "server {{ $labels.server }} of backend {{ $labels.backend }} is up, but some of its checks fail",
        "Again and again a check fails, and the next one succeeds. `txmux servers {{ $labels.backend }}` shows how long checks take: compare that with `timeout` of `check`, and look at the server's load.",
        expr="increase(txmux_backend_checks_recovered_total[15m]) >= 3\n"
             'and on (instance, backend, server) txmux_backend_server_state{state="up"} == 1',
        lasts="5m", severity="warning", runbook="a-server-is-down", sources=NO_SOURCE,
        fires=_UP | {_RECOVERED: "0+1x60"}, quiet=(_DRAINED | {_RECOVERED: "0+1x60"}, _UP | {_RECOVERED: "0x29 2x30"})),
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
        expr="txmux_bans > 80000", lasts="5m", severity="warning", runbook=SELF, sources=NO_SOURCE,
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


_NAMED = {alert.name: alert for alert in OF_ITEMS}
_COMMON = [_NAMED[name] for name in COMMON]


def alerts_of(row: AttentionRow) -> tuple[Alert, ...]:
    """Return those of its level."""
    names = () if isinstance(row.alerts, str) else row.alerts
    return tuple(_NAMED[name] for name in names if _NAMED[name].severity in {"", row.level})


def _alerts() -> dict[tuple[str, str], tuple[Alert, ...]]:
    """Return the alerts of each topic and level, which are what Prometheus knows of an item."""
    found: dict[tuple[str, str], tuple[Alert, ...]] = {}
    for row in every_row():
        its, where = alerts_of(row), f"{row.what}, {row.level}"
        if not its and not isinstance(row.alerts, str):
            raise ValueError(f"{where}: say in `alerts` why none fires: {row.text}")
        if found.setdefault((row.what, row.level), its) != its:
            raise ValueError(f"{where}: two kinds of alerts, of which one is for: {row.text}")
    return found


_ALERTS = _alerts()
_RULES = {
    **{(one, one.severity): one.runbook for one in _COMMON},
    **{
        (one, row.level): one.runbook or row.runbook
        for row in every_row()
        for one in alerts_of(row)
    },
    **{(one, one.severity): one.runbook for one in BESIDE},
}
"""By alert and severity, the heading of the troubleshooting page."""


def _count(what: str, level: str) -> str:
    return f'txmux_attention{{level="{level}",what="{what}"}}'


def _items(alert: Alert, level: str) -> list[str]:
    return [_count(*pair) for pair, its in _ALERTS.items() if alert in its and pair[1] == level]


def _expr(alert: Alert, level: str) -> str:
    if alert not in _COMMON:
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
            one for one in _COMMON if one.severity == level
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
