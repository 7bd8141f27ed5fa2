"""The commands that report what a running service does: `REPORTS`, one line each."""

import shutil
import sys
import textwrap
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.command import Ask, RemoteCommand
from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError, UsageError
from txmux.errors import printable
from txmux.telemetry import documents, presentation
from txmux.telemetry.formatting import duration

_LABEL = 13  # columns
_DIGEST = 12  # characters; enough to distinguish versions
_MOST_SERVERS = 20


_CONNECTIONS = documents.CONNECTIONS.first("id")  # which `txmux close` takes


def _write_list(
    table: presentation.Table, rows: Sequence[presentation.Row], nothing: str = ""
) -> None:
    if rows:
        Output().listing(table, rows)
    else:
        Output().line(nothing or f"there are no {table.title}")


def _certificates(ask: Ask, arguments: Namespace) -> Any:
    if arguments.renew is None:
        return ask("GET", "/api/certificates")
    return ask("POST", f"/api/certificates/{quote(arguments.renew, safe='')}/renew")


def _write_certificates(answer: Any, arguments: Namespace) -> None:
    if arguments.renew is not None:
        Output().line(str(answer["changes"]))
    else:
        _write_list(documents.CERTIFICATES, answer)


def _limit_argument(parser: ArgumentParser, default: int) -> None:
    parser.add_argument("--limit", metavar="NUMBER", type=int, default=default, help=f"at most this many; by default {default}")  # fmt: skip


def _connections_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("words", metavar="FILTER=VALUE", nargs="*", help="a filter, written as in the API")  # fmt: skip
    command.add_filters(parser)
    _limit_argument(parser, 1000)
    parser.add_argument("--after", metavar="ID", help="continue after this ID")


def _connections(ask: Ask, arguments: Namespace) -> Any:
    filters = command.read_filters(arguments.words, arguments)
    query = {**filters, "limit": str(arguments.limit)}
    if arguments.after is not None:
        query["after"] = arguments.after
    answer = ask("GET", f"/api/connections?{urlencode(query)}")
    if len(answer) == arguments.limit:
        print(
            f"these are the first {arguments.limit}; for more give --limit, or --after {answer[-1]['id']}",
            file=sys.stderr,
        )
    if not answer:
        command.note_unknown(ask, filters)
    return answer


def _write_connections(answer: Sequence[Mapping[str, Any]], arguments: Namespace) -> None:
    is_filtered = command.read_filters(arguments.words, arguments) or arguments.after is not None
    nothing = "there is no such connection" if is_filtered else "there are no connections"
    _write_list(_CONNECTIONS, answer, nothing)


def _status_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        action="store_true",
        help="write the items that need attention for monitoring, a line each, the worst first, with performance data; the exit code is 0 if there is none but notes, 1 for a warning, 2 for a critical one, 3 if the service does not answer",
    )


def _status(ask: Ask, arguments: Namespace) -> Any:
    # Its lines are for a program, which an error output would confuse; what is missing is an item by itself.
    quiet = {"warn": lambda _: None} if arguments.check else {}
    try:
        status = ask("GET", "/api/status", **quiet)
    except ServiceRefusedError as refused:
        if arguments.check:
            raise NoServiceError(str(refused)) from refused
        raise
    if arguments.json or arguments.check:
        return status
    more = {name: ask("GET", f"/api/{name}") for name in ("routes", "backends")}
    return {**status, **more}


def _status_code(status: Mapping[str, Any], arguments: Namespace) -> int:
    return presentation.attention_verdict(status)[0] if arguments.check else 0


def _status_failed(error: NoServiceError | UsageError, arguments: Namespace) -> int:
    if not arguments.check:
        return command.failed(error)
    # NRPE passes on standard output alone. 1 would be a warning, and 2 something critical.
    print(f"UNKNOWN: {printable(str(error))}")
    return command.NO_SERVICE


def _write_status(status: Mapping[str, Any], arguments: Namespace) -> None:
    output = Output()
    if arguments.check:
        for line in presentation.attention_verdict(status)[1]:
            output.line(line)
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for label, text, style in _lines(status, time.time()):
        folded = textwrap.wrap(
            text, columns - _LABEL, break_long_words=False, break_on_hyphens=False
        )
        for number, line in enumerate(folded):
            output.line(f"{'' if number else label:{_LABEL}}{line}", style)
    routes = status.get("routes", ())
    busy = [
        route
        for route in presentation.busy_routes(routes)
        if route.get("matches") or route.get("active")
    ]
    servers = presentation.server_rows(status.get("backends", ()))
    listeners = status.get("listeners", ())
    listed: Sequence[tuple[presentation.Table, Sequence[presentation.Row]]] = (
        (documents.listeners(listeners), listeners),
        (documents.ROUTES, [*busy, *presentation.unrouted(status, routes)]),
        (documents.SERVERS, servers[:_MOST_SERVERS]),
        (documents.ADDRESSES, [*filter(presentation.found_addresses, servers)]),
        (documents.WORKERS, status.get("workers", ())),
    )
    for table, rows in listed:
        if rows:
            output.line()
            output.listing(table, rows)
        if table is documents.SERVERS and len(servers) > _MOST_SERVERS:
            output.line(f"and {len(servers) - _MOST_SERVERS} more: txmux servers")


# A service of another version may report less, or more: what is missing is left out.


def _lines(status: Mapping[str, Any], now: float) -> Iterator[tuple[str, str, str]]:
    """Yield the label, the value and the style of each line; what needs attention comes first."""
    for item in presentation.folded_attention(status):
        style = presentation.STYLES[presentation.HEALTH_OF_LEVEL.get(item["level"], "down")]
        yield item["level"], presentation.attention_line(item, now), style
        if item.get("do"):
            yield "", str(item["do"]), ""
    yield "txmux", f"{status.get('version', '?')}, process {status.get('pid', '?')}", "bold"
    if status.get("draining"):
        yield "state", f"stops; served{_since(status.get('started'), now)}", "yellow"
    else:
        yield "state", f"serves{_since(status.get('started'), now)}", ""
    generation = f", generation {status['generation']}" if "generation" in status else ""
    digest = status.get("rules_sha256", "")[:_DIGEST]
    sha256 = f", sha256 {digest}" if digest else ""
    yield "rules", f"{status.get('rules_path', '?')}{generation}{sha256}", ""
    reload = status.get("last_reload")
    if reload:
        when = presentation.date(reload["time"])
        what = reload["changes"] or "FAILED, nothing has changed"
        yield "reload", f"{when}: {what}", "" if reload["ok"] else "bold red"
        yield from (("", line, "red") for line in reload["errors"])
    yield "connections", presentation.connection_counts(status), ""
    if growth := presentation.rates(status):
        yield "rates", growth, ""
    bans = status.get("bans", {})
    if bans.get("active") or bans.get("shared"):
        shared = f", shared with other machines: {bans['shared']}" if bans["shared"] else ""
        style = "yellow" if bans["shared"] in {"lost", "partial"} else ""
        yield "bans", f"{bans['active']}{shared}", style


def _servers(ask: Ask, arguments: Namespace) -> Any:
    if arguments.backend is None:
        return ask("GET", "/api/backends")
    return [command.backend_named(ask, arguments.backend)]


def _write_servers(answer: Sequence[Mapping[str, Any]], _: Namespace) -> None:
    servers = presentation.server_rows(answer)
    _write_list(documents.SERVERS, servers)
    if found := [*filter(presentation.found_addresses, servers)]:
        Output().line()
        Output().listing(documents.ADDRESSES, found)


def _since(started: float | None, now: float) -> str:
    return (
        f" since {presentation.date(started)}, for {duration(int(now - started))}"
        if started
        else ""
    )


# fmt: off
REPORTS = {
    "bans": RemoteCommand(lambda ask, _: ask("GET", "/api/bans"), lambda answer, _: _write_list(documents.BANS, answer)),
    "certificates": RemoteCommand(
        _certificates, _write_certificates, 300,
        lambda parser: parser.add_argument("--renew", metavar="NAME", help="renew the one of this name now, by ACME")),
    "clients": RemoteCommand(
        lambda ask, arguments: ask("GET", f"/api/clients?limit={arguments.limit}"),
        lambda answer, _: _write_list(documents.CLIENTS, answer, "no client has connected yet"), 30, lambda parser: _limit_argument(parser, 100)),
    "connections": RemoteCommand(_connections, _write_connections, 30, _connections_arguments),
    "servers": RemoteCommand(
        _servers, _write_servers, 10, lambda parser: parser.add_argument("backend", metavar="BACKEND", nargs="?", help="only those of this backend")),
    "status": RemoteCommand(_status, _write_status, 10, _status_arguments, _status_code, _status_failed),
}
# fmt: on
