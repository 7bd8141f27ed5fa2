"""Writes the tables and the diagram of the docs and of README that say what the code says, and the alerts; ``script/docs`` runs it."""

from __future__ import annotations

import json
import re
import runpy
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from txmux.admin.api.openapi import description
from txmux.admin.metrics import METRICS
from txmux.admin.site import ADMIN
from txmux.detection.registry import installed_matchers, transports_of
from txmux.rules.installed import STAGES
from txmux.rules.reading.sections import HEADERS, TABLES
from txmux.tcp.states import STATES, State
from txmux.tcp.transitions import CHOICES, OF_FEATURES, TRANSITIONS
from txmux.telemetry import documents
from txmux.telemetry.attention_rows import every_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from txmux.rules.reading.values import SectionKey
    from txmux.telemetry.attention import AttentionRow
    from txmux.telemetry.counting.counter_rows import Metric
    from txmux.telemetry.record import ConnectionState

_NOT_OWN = {*State._field_defaults.values()}
_ROOT = Path(__file__).parent.parent
_ALERTS = runpy.run_path(str(_ROOT / "docs/alerts.py"))
_WAITS_FOR = {
    "introduction": "a PROXY protocol header",
    "peeking": "the client's first bytes, until a route takes it",
    "handshaking": "the client's TLS handshake",
    "awaiting-hello": "the rest of a ClientHello, for [`proxy_tlvs`](rules.md#fields-of-the-proxy-protocol-header) or [by its route](rules.md#tls-that-is-passed-on)",
    "connecting": "a server, also in the backend's `queue`",
    "awaiting-retry": "the server's answer to a [hello](rules.md#tls-that-is-passed-on), or the second one that it asks for",
    "relaying": "bytes from either side",
    "serving": "a protocol in this process",
    "handing-over": "a server's confirmation that it has the client's own socket",
    "rejecting": "the client to read the answer that turns it away",
    "closing": "the client to close",
    **{stage.state: stage.waits_for for stages in STAGES.values() for stage in stages},
}
"""What a connection waits for, by its state."""


def keys(page: str) -> str:
    """Write the tables of keys of ``reference/rules.md``."""
    for kind, table in TABLES.items():
        rows = (_key_row(name, key) for name, key in table.items())
        columns = ("key", "takes", "default", "meaning")
        page = _with_table(page, f"the keys of {HEADERS[kind]}", columns, rows)
    return secrets(page)


def secrets(page: str) -> str:
    """Write whose secrets workers have, and whose only the supervisor has."""
    named: dict[str, dict[str, None]] = {"workers": {}, "the supervisor": {}}
    for table in TABLES.values():
        for name, key in table.items():
            if key.files.is_secret:
                named["the supervisor" if key.files.opens == "supervisor" else "workers"][name] = (
                    None
                )
    for who, names in named.items():
        begin, keys = f"<!-- {who}, by script/docs -->", ", ".join(f"`{name}`" for name in names)
        page = re.sub(f"({begin}).*?(<!-- end -->)", rf"\1{keys}\2", page)
    return page


def _key_row(name: str, key: SectionKey) -> Iterator[str]:
    yield f"`{name}`"
    yield key.kind.shape
    yield "required" if key.required else "none" if key.default is None else f"`{key.default}`"
    yield key.meaning


def matchers(page: str) -> str:
    """Write the list of ``reference/matchers.md``."""
    groups: dict[str, list[str]] = {"TCP": [], "TCP, UDP": [], "UDP": []}
    for name, matcher in installed_matchers().items():
        over = ", ".join(sorted(one.name for one in transports_of(matcher)))
        groups[over].append(f"[`{name}`](#{name})")
    rows = ((over, " ".join(names)) for over, names in groups.items())
    return _with_table(page, "all matchers", ("over", "matchers"), rows)


def readme(page: str) -> str:
    """Write the number of matchers into ``README.md``."""
    number = len(installed_matchers())
    return re.sub(r"\b[0-9]+(?= \[?matchers\b)", str(number), page)


def architecture(page: str) -> str:
    """Draw the stages of a connection in ``explanation/architecture.md``."""
    seen = "Which stage of a connection follows which, by the outcome of the one before."
    return _with_block(
        page, "the stages of a connection", [f"```{{diagram}} {seen}", *_stages(), "```"]
    )


def core(page: str) -> str:
    """Write what serves each state of a connection into ``explanation/core.md``."""
    columns = "state", "file in `tcp/stages/`", "functions beside a stage object"
    return _with_table(page, "the states of the core", columns, map(_state_row, STATES))


def _state_row(name: ConnectionState) -> Iterator[str]:
    state = STATES[name]
    names = [f"`{field}`" for field, its in state._asdict().items() if its not in _NOT_OWN]
    yield f"`{name}`"
    yield f"`{state.enter.__module__.rpartition('.')[2]}.py`"
    yield ", ".join(names) if len(names) > 1 else "none"


def _stages() -> Iterator[str]:
    yield "digraph {"
    for node, outcomes in TRANSITIONS.items():
        if node == "accepted":
            yield f'  "{node}" [shape=plain]'
        elif node in CHOICES:
            yield f'  "{node}" [shape=diamond style="" margin=0]'
        for outcome, following in outcomes.items():
            if following != "over":  # as each stage may be
                yield f'  "{node}" -> "{following}" [label="{_words(outcome.__name__)}"]'
    for kind, stages in STAGES.items():
        for stage in stages:
            yield f'  "{OF_FEATURES[kind][0]}" -> "{stage.state}" [label="{stage.key}"]'
    yield "}"


def _words(name: str) -> str:
    """Return the name of a class as words: ``HeaderExpected`` is ``header expected``."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", name)
    return " ".join(part if part.isupper() else part.lower() for part in parts)


def admin_api(page: str) -> str:
    """Write the tables of the documents that ``reference/admin-api.md`` has a place for."""
    for title in re.findall(r"<!-- (the fields of \w+), by script/docs -->", page):
        names: dict[str, list[str]] = {}
        meaning = ""
        for field in documents.every_field_of(getattr(documents, title.split()[-1])):
            meaning = field.meaning or meaning
            names.setdefault(meaning, []).append(f"`{field.name}`")
        # The page says once in what times are; each field of OpenAPI says so.
        rows = (
            (", ".join(named), meaning.replace(", in seconds since 1970", ""))
            for meaning, named in names.items()
        )
        page = _with_table(page, title, ("field", "meaning"), rows)
    states = ((f"`{state}`", _WAITS_FOR[state]) for state in documents.STATES)
    return _with_table(page, "the states", ("state", "the connection waits for"), states)


def topics(page: str) -> str:
    """Write the table of what needs attention in ``reference/admin-api.md``."""
    pairs: dict[tuple[str, str], list[AttentionRow]] = {}
    for row in every_row():
        pairs.setdefault((row.what, row.level), []).append(row)
    columns = ("`what`", "level", "when", "alert")
    return _with_table(page, "what needs attention", columns, map(_topic_row, pairs.values()))


def _topic_row(rows: Sequence[AttentionRow]) -> Iterator[str]:
    headings = [*dict.fromkeys(row.runbook for row in rows)]
    yield f"[`{rows[0].what}`](../how-to/troubleshooting.md#{headings[0]})"
    yield rows[0].level
    yield "; or ".join(row.when for row in rows)
    alerts = [f"`{alert.name}`" for row in rows for alert in _ALERTS["alerts_of"](row)]
    yield ", ".join(dict.fromkeys(alerts)) or "none"


def senders(page: str) -> str:
    """Write the table of who can raise an item or an alert in ``how-to/watch-and-steer.md``."""
    texts: dict[tuple[str, ...], set[str]] = {}  # of a topic, and of its levels
    for row in every_row():
        for key in ((row.what,), (row.what, row.level)):
            texts.setdefault(key, set()).add(row.sources)
    named: dict[str, dict[str, None]] = {}
    for row in every_row():
        which = ""
        if len(texts[row.what,]) > 1:
            is_level = len(texts[row.what, row.level]) == 1
            which = f" ({row.level})" if is_level else f", if {re.split('[:;]', row.when)[0]}"
        named.setdefault(row.sources, {})[f"`{row.what}`{which}"] = None
    for alert in _ALERTS["BESIDE"]:
        named.setdefault(alert.sources, {})[f"`{alert.name}`"] = None
    rows = (("; ".join(names), text) for text, names in named.items())
    return _with_table(page, "who can raise what", ("what", "sources that it takes"), rows)


def openapi(page: str) -> str:
    """Write ``reference/openapi.json``; the version in it changes with a release alone."""
    document = description(ADMIN)
    document["info"]["version"] = json.loads(page)["info"]["version"]
    return f"{json.dumps(document, indent=1)}\n"


def metrics(page: str) -> str:
    """Write the table of ``reference/metrics.md``."""
    columns = ("metric", "type", "labels", "meaning")
    return _with_table(
        page, "all metrics", columns, map(_metric_row, sorted(METRICS, key=attrgetter("name")))
    )


def _metric_row(metric: Metric) -> Iterator[str]:
    yield f"`txmux_{metric.name}`"
    yield metric.kind
    yield " ".join(f"`{label}`" for label in metric.labels.split())
    yield f"{metric.help} {metric.more}".rstrip()


PAGES = {
    _ROOT / "docs/explanation/architecture.md": architecture,
    _ROOT / "docs/explanation/core.md": core,
    _ROOT / "docs/reference/admin-api.md": lambda page: topics(admin_api(page)),
    _ROOT / "docs/reference/openapi.json": openapi,
    _ROOT / "docs/reference/metrics.md": metrics,
    _ROOT / "docs/reference/rules.md": keys,
    _ROOT / "docs/reference/matchers.md": matchers,
    _ROOT / "docs/how-to/watch-and-steer.md": senders,
    _ROOT / "README.md": readme,
    _ROOT / "SECURITY.md": secrets,
    **_ALERTS["PAGES"],
}
"""What writes the generated parts of each page: gets the page's text and returns it as it should be."""


def _with_table(page: str, name: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = [*columns]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    lines.insert(1, f"|{'---|' * len(heads)}")
    return _with_block(page, name, lines)


def _with_block(page: str, name: str, lines: Iterable[str]) -> str:
    """Replace the lines between ``<!-- NAME, by script/docs -->`` and ``<!-- end -->``."""
    begin, end = f"<!-- {name}, by script/docs -->\n", "<!-- end -->\n"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"the page has no place for this: {begin.strip()}")
    text = "".join(f"{line}\n" for line in lines)
    return f"{before}{begin}{text}{end}{after}"


if __name__ == "__main__":
    for path, written in PAGES.items():
        path.write_text(written(path.read_text()))
