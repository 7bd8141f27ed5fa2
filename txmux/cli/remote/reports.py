"""The commands that report what a running service does: `REPORTS`, one line each."""

import shutil
import sys
import textwrap
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from txmux.cli._output import Output, Row
from txmux.cli.remote.command import Ask, RemoteCommand, add_filters, read_filters
from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError
from txmux.telemetry.attention import attention_items, attention_line, attention_verdict
from txmux.telemetry.formatting import (
    connection_counts,
    duration,
    rates,
    server_state,
    si_number,
    slow_start,
    worker_state,
    worst_first,
)

_LABEL = 13  # columns
_DIGEST = 12  # characters; enough to distinguish versions
_MOST_ADDRESSES = 8  # of one server
_MOST_SERVERS = 20
_SERVER_HEAD = ("backend", "server", "state", "active", "failed", "why")
_CLIENT_NUMBERS = (
    "active", "connections", "rate", "bytes_in", "bytes_out", "refused", "unrecognised",
)  # fmt: skip
_CLIENT_HEAD = (
    "source", "active", "connections", "/s", "in", "out", "refused", "unrecognised", "for",
)  # fmt: skip
_STYLES = {"up": "", "drain": "yellow", "maintenance": "yellow", "disabled": "dim"}
_WORKER_STYLES = {"starts": "yellow", "does not answer": "bold red", "retires": "dim"}
_LEVEL_STYLES = {"critical": "bold red", "warning": "yellow"}
_HEAD = ("id", "client", "route", "server", "state", "age", "in", "out")


def _write_list(rows: Sequence[Sequence[str]], head: Sequence[str], nothing: str) -> None:
    if rows:
        Output().table([(cells, "") for cells in rows], head)
    else:
        Output().line(nothing)


def _write_bans(answer: Sequence[Mapping[str, Any]], _: Namespace) -> None:
    rows = [_ban_cells(ban) for ban in answer]
    _write_list(rows, ("network", "left", "reason"), "there are no bans")


def _ban_cells(ban: Mapping[str, Any]) -> list[str]:
    left = "-" if ban["until"] is None else duration(int(ban["until"] - time.time()))
    return [str(ban["network"]), left, str(ban["reason"] or "-")]


def _certificates_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--renew", metavar="NAME", help="renew the one of this name now, by ACME")


def _certificates(ask: Ask, arguments: Namespace) -> Any:
    if arguments.renew is None:
        return ask("GET", "/api/certificates")
    return ask("POST", f"/api/certificates/{quote(arguments.renew, safe='')}/renew")


def _write_certificates(answer: Any, arguments: Namespace) -> None:
    if arguments.renew is not None:
        Output().line(str(answer["changes"]))
        return
    rows = [_certificate_cells(row) for row in answer]
    head = ("names", "issuer", "ends", "next renewal", "route", "from")
    _write_list(rows, head, "there are no certificates")


def _certificate_cells(row: Mapping[str, Any]) -> list[str]:
    issuer = "itself, until there is another" if row["is_self_signed"] else str(row["issuer"])
    next_renewal = "-" if row["next_renewal"] is None else _time(row["next_renewal"])
    source = "acme" if row["acme"] else str(row["file"])
    return [
        ", ".join(row["names"]),
        issuer,
        _time(row["not_after"]),
        next_renewal,
        row["route"],
        source,
    ]


def _clients_arguments(parser: ArgumentParser) -> None:
    _limit_argument(parser, 100)


def _limit_argument(parser: ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--limit",
        metavar="NUMBER",
        type=int,
        default=default,
        help=f"at most this many; by default {default}",
    )


def _write_clients(answer: Sequence[Mapping[str, Any]], _: Namespace) -> None:
    _write_list([_client_cells(row) for row in answer], _CLIENT_HEAD, "no client has connected yet")


def _client_cells(row: Mapping[str, Any]) -> list[str]:
    counted_for = duration(int(time.time() - row["since"]))
    return [row["source"], *(si_number(row[name]) for name in _CLIENT_NUMBERS), counted_for]


def _connections_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "words", metavar="FILTER=VALUE", nargs="*", help="a filter, written as in the API"
    )
    add_filters(parser)
    _limit_argument(parser, 1000)
    parser.add_argument("--after", metavar="ID", help="continue after this ID")


def _connections(ask: Ask, arguments: Namespace) -> Any:
    query = {**read_filters(arguments.words, arguments), "limit": str(arguments.limit)}
    if arguments.after is not None:
        query["after"] = arguments.after
    answer = ask("GET", f"/api/connections?{urlencode(query)}")
    if len(answer) == arguments.limit:
        print(
            f"these are the first {arguments.limit}; for more give --limit, or --after {answer[-1]['id']}",
            file=sys.stderr,
        )
    return answer


def _write_connections(answer: Sequence[Mapping[str, Any]], arguments: Namespace) -> None:
    is_filtered = read_filters(arguments.words, arguments) or arguments.after is not None
    nothing = "there is no such connection" if is_filtered else "there are no connections"
    _write_list([_cells(connection) for connection in answer], _HEAD, nothing)


def _cells(connection: Mapping[str, Any]) -> list[str]:
    texts = [str(connection.get(name) or "-") for name in _HEAD[:5]]
    counts = [si_number(connection[name]) for name in ("bytes_in", "bytes_out")]
    return [*texts, duration(connection["age_ms"] // 1000), *counts]


def _status_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        action="store_true",
        help="write the worst item that needs attention in one line; the exit code is 0 if there is none but notes, 1 for a warning, 2 for a critical one, 3 if the service does not answer",
    )


def _status(ask: Ask, arguments: Namespace) -> Any:
    try:
        status = ask("GET", "/api/status")
    except ServiceRefusedError as refused:
        if arguments.check:  # 1 would be a warning
            raise NoServiceError(str(refused)) from refused
        raise
    if arguments.json or arguments.check:
        return status
    more = {name: ask("GET", f"/api/{name}") for name in ("routes", "backends")}
    return {**status, **more}


def _status_code(status: Mapping[str, Any], arguments: Namespace) -> int:
    return attention_verdict(status)[0] if arguments.check else 0


def _write_status(status: Mapping[str, Any], arguments: Namespace) -> None:
    output = Output()
    if arguments.check:
        output.line(attention_verdict(status)[1])
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for label, text, style in _lines(status, time.time()):
        folded = textwrap.wrap(
            text, columns - _LABEL, break_long_words=False, break_on_hyphens=False
        )
        for number, line in enumerate(folded):
            output.line(f"{'' if number else label:{_LABEL}}{line}", style)
    servers = worst_first(status.get("backends", ()))
    tables = (
        _listeners(status),
        _routes(status),
        (_SERVER_HEAD, [_server_row(*pair) for pair in servers[:_MOST_SERVERS]]),
        _resolved_addresses(status),
        _workers(status),
    )
    for head, rows in tables:
        if rows:
            output.line()
            output.table(rows, head)
        if head is _SERVER_HEAD and len(servers) > _MOST_SERVERS:
            output.line(f"and {len(servers) - _MOST_SERVERS} more: txmux servers")


# A service of another version may report less, or more: what is missing is left out.


def _lines(status: Mapping[str, Any], now: float) -> Iterator[tuple[str, str, str]]:
    """Yield the label, the value and the style of each line; what needs attention comes first."""
    for item in attention_items(status):
        yield "attention", attention_line(item, now), _LEVEL_STYLES.get(item["level"], "")
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
        when = _time(reload["time"])
        what = reload["changes"] or "FAILED, nothing has changed"
        yield "reload", f"{when}: {what}", "" if reload["ok"] else "bold red"
        yield from (("", line, "red") for line in reload["errors"])
    yield "connections", connection_counts(status), ""
    if growth := rates(status):
        yield "rates", growth, ""
    bans = status.get("bans", {})
    if bans.get("active") or bans.get("shared"):
        shared = f", shared with other machines: {bans['shared']}" if bans["shared"] else ""
        style = "yellow" if bans["shared"] in {"lost", "partial"} else ""
        yield "bans", f"{bans['active']}{shared}", style


def _listeners(status: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Row]]:
    rows: list[Row] = []
    for listener in status.get("listeners", ()):
        accepts = listener.get("accepting")
        state = "" if accepts is None else "accepts" if accepts else "does not accept"
        addresses = listener.get("addresses") or listener.get("endpoints") or ("",)
        for number, address in enumerate(addresses):
            cells = ("", str(address), "") if number else (listener["name"], str(address), state)
            rows.append((cells, "yellow" if accepts is False else ""))
    return ("listener", "address", ""), rows


def _routes(status: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Row]]:
    """Return the routes with traffic, in the order of the rules."""
    rows: list[Row] = []
    for route in status.get("routes", ()):
        if route.get("matches") or route.get("active"):
            counts = (
                si_number(route[name]) for name in ("matches", "active", "bytes_in", "bytes_out")
            )
            rows.append(((str(route["name"]), str(route.get("backend") or "-"), *counts), ""))
    rows += _unrouted(status)
    return ("route", "to", "matches", "active", "in", "out"), rows


def _unrouted(status: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the row of the clients that no route took."""
    connections = status.get("connections", {})
    ended = connections.get("unrouted")
    if ended is None:
        return
    routed = sum(route.get("active", 0) for route in status.get("routes", ()))
    active = max(0, connections["active"] - connections["undecided"] - routed)
    if ended["ended"] or active:
        numbers = (ended["ended"] + active, active, ended["bytes_in"], ended["bytes_out"])
        yield ("-", "no route", *map(si_number, numbers)), ""


def _server_row(backend: str, server: Mapping[str, Any]) -> Row:
    state = server_state(server)
    why = slow_start(server) if server["state"] == "up" else str(server.get("why") or "")
    counts = (str(server.get(name, 0)) for name in ("active", "failed"))
    cells = (backend, str(server["server"]), state, *counts, why)
    return cells, _STYLES.get(str(server["state"]), "bold red")


def _servers(ask: Ask, arguments: Namespace) -> Any:
    backends = ask("GET", "/api/backends")
    if arguments.backend is None:
        return backends
    named = [backend for backend in backends if backend["name"] == arguments.backend]
    if not named:
        from txmux.rules.problems import listed  # noqa: PLC0415 - only a wrong name needs it

        hint = listed(str(backend["name"]) for backend in backends)
        why = f"there is no backend {arguments.backend!r}{hint}"
        raise ServiceRefusedError([why], HTTPStatus.NOT_FOUND, {"error": why})
    return named


def _write_servers(answer: Sequence[Mapping[str, Any]], _: Namespace) -> None:
    rows = [_server_row(*pair) for pair in worst_first(answer)]
    if rows:
        Output().table(rows, _SERVER_HEAD)
    else:
        Output().line("there are no servers")
    head, addresses = _resolved_addresses({"backends": answer})
    if addresses:
        Output().line()
        Output().table(addresses, head)


def _servers_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("backend", metavar="BACKEND", nargs="?", help="only those of this backend")


def _workers(status: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Row]]:
    rows: list[Row] = []
    counts = ("generation", "active", "undecided", "older")
    for worker in status.get("workers", ()):
        state = worker_state(worker)
        sandbox = {True: "yes", False: "no"}.get(worker.get("sandbox"), "")
        number, pid, *counted = (str(worker.get(name, "")) for name in ("worker", "pid", *counts))
        rows.append(((number, pid, state, sandbox, *counted), _WORKER_STYLES.get(state, "")))
    head = ("worker", "pid", "state", "sandbox", "rules", "active", "undecided", "older rules")
    return head, rows


def _resolved_addresses(status: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Row]]:
    """Return the resolved addresses of names and services, those first that are not up."""
    rows: list[Row] = []
    for backend in status.get("backends", ()):
        for server in backend["servers"]:
            name, addresses = server["server"], server.get("addresses", ())
            if server["state"] == "unresolved":
                rows.append(((backend["name"], name, "none", "not found yet"), "bold red"))
            if all(address["address"] == name for address in addresses):
                continue
            ordered = sorted(addresses, key=lambda address: address["state"] == "up")
            for number, address in enumerate(ordered[:_MOST_ADDRESSES]):
                first = ("", "") if number else (backend["name"], name)
                state = str(address["state"])
                rows.append(((*first, address["address"], state), _STYLES.get(state, "red")))
            if len(addresses) > _MOST_ADDRESSES:
                rows.append((("", "", f"and {len(addresses) - _MOST_ADDRESSES} more", ""), ""))
    return ("backend", "server", "found", ""), rows


def _since(started: float | None, now: float) -> str:
    return f" since {_time(started)}, for {duration(int(now - started))}" if started else ""


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


_CLIENTS = RemoteCommand(
    lambda ask, arguments: ask("GET", f"/api/clients?limit={arguments.limit}"),
    _write_clients,
    30,
    _clients_arguments,
)

REPORTS = {
    "bans": RemoteCommand(lambda ask, _: ask("GET", "/api/bans"), _write_bans),
    "certificates": RemoteCommand(_certificates, _write_certificates, 300, _certificates_arguments),
    "clients": _CLIENTS,
    "connections": RemoteCommand(_connections, _write_connections, 30, _connections_arguments),
    "servers": RemoteCommand(_servers, _write_servers, 10, _servers_arguments),
    "status": RemoteCommand(_status, _write_status, 10, _status_arguments, _status_code),
}
