"""The backends of an ``haproxy.cfg``: how servers are chosen and connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.convert.haproxy.binds import address
from txmux.convert.haproxy.checks import add_check
from txmux.convert.haproxy.lines import duration, seconds
from txmux.convert.haproxy.servers import add_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txmux.convert.haproxy.lines import ConfigLine, Proxy
    from txmux.convert.haproxy.servers import ServerLine
    from txmux.convert.writer import Draft, DraftSection

_BALANCE = {
    "roundrobin": "round-robin",
    "static-rr": "round-robin",
    "leastconn": "least-connections",
    "source": "source-hash",
    "random": "random",
    "first": "first",
}
_BY_SOURCE = frozenset({("stick", "on", "src"), ("stick", "match", "src")})
_WITHOUT_LIMIT = 1_000_000
"""As many clients wait in HAProxy as there are."""


def fill_backend(
    proxy: Proxy, section: DraftSection, clients: Sequence[Proxy], draft: Draft, used: set[int]
) -> None:
    """Write the keys of a ``[backend]``.

    Args:
        proxy: The backend, or what is a frontend, too.
        section: Where they go.
        clients: The frontends whose clients go there.
        draft: Where the section belongs.
        used: Numbers of the lines that are dealt with; filled here.
    """
    servers = add_servers(proxy, section, clients, draft, used)
    _balance(proxy, section, servers, draft, used)
    add_check(proxy, section, servers, draft, used)
    _source(proxy, section, servers, draft, used)
    _times(proxy, section, clients, used)
    _queue(proxy, section, servers, clients)
    retries = proxy.value("retries")
    if retries:
        used.add(retries.number)
        section.add("retries", retries.words[1], retries.number)


def _balance(
    proxy: Proxy, section: DraftSection, servers: Sequence[ServerLine], draft: Draft, used: set[int]
) -> None:
    line = proxy.value("balance")
    if line:
        used.add(line.number)
    used.update(line.number for line in proxy.all("option", "allbackups"))
    # A hash always selects the same servers; in txmux it is always "consistent".
    used.update(line.number for line in proxy.all("hash-type"))
    backups = [s for s in servers if "backup" in s.parameters and not s.is_down]
    active = [s for s in servers if "backup" not in s.parameters]
    # One line that stands for as many servers as a name has addresses.
    several = len(active) > 1 or any(s.line.words[0] == "server-template" for s in active)
    takes_turns = len(backups) > 1 and not proxy.all("option", "allbackups")
    if takes_turns and len(active) <= 1:
        # Of several backups HAProxy uses the first one that is up.
        section.add("balance", "first", backups[1].line.number)
        return
    if takes_turns:
        message = (
            f"{backups[1].line}: HAProxy uses the first backup that is up, and txmux all of them; "
            "keep one, or let them take turns"
        )
        draft.look(backups[1].line.number, message, section)
    sticks = [one for one in proxy.lines if one.words in _BY_SOURCE]
    if sticks and several and len(proxy.all("stick")) == 1:
        used.update(one.number for one in (*sticks, *proxy.all("stick-table")))
        message = f"{sticks[0]}: clients are distributed by a hash of their address, and no table of them is stored"
        draft.warn(sticks[0].number, message, section)
        section.add("balance", "source-hash", sticks[0].number)
    elif several or (not active and len(servers) > 1):
        name = line.words[1].partition("(")[0] if line else "roundrobin"
        name = "source" if line and line.words[1:] == ("hash", "src") else name
        number = line.number if line else proxy.number
        if name in _BALANCE:
            section.add("balance", _BALANCE[name], number)
        else:
            draft.look(number, f"{line}: has no counterpart; round-robin is used", section)


def _source(
    proxy: Proxy, section: DraftSection, servers: Sequence[ServerLine], draft: Draft, used: set[int]
) -> None:
    line = proxy.value("source")
    whole = " ".join(line.words[1:]) if line else ""
    if line:
        used.add(line.number)
    sources = {server.parameters.get("source", whole): server.line.number for server in servers}
    if len(sources) > 1:
        message = f"source: is left out: servers of a [backend] have the same, and these differ: {', '.join(sources)}"
        draft.look(max(sources.values()), message, section)
        return
    for text, number in sources.items():
        where, _, client = text.partition(" usesrc ")
        host, ports = address(where) or (where, "")
        if "-" in ports:
            host = f"[{host}]:{ports}" if ":" in host else f"{host}:{ports}"
        if text:
            at = number if text != whole or line is None else line.number
            section.add("source", "client" if client else host, at)


def _queue(
    proxy: Proxy, section: DraftSection, servers: Sequence[ServerLine], clients: Sequence[Proxy]
) -> None:
    """Let clients wait for a server that is full, as all do in HAProxy."""
    limited = [s for s in servers if s.parameters.get("maxconn", "0") != "0"]
    if not limited:
        return
    most = [line for client in clients if (line := client.value("maxconn"))]
    numbers = [int(line.words[1]) for line in most if line.words[1].isdecimal()]
    known = len(numbers) == len(clients) and all(numbers) and clients
    number = limited[0].line.number
    section.add(
        "queue", str(min(sum(numbers), _WITHOUT_LIMIT) if known else _WITHOUT_LIMIT), number
    )
    connect = proxy.value("timeout", "connect")
    if "queue_timeout" not in section.entries and connect and len(connect.words) > 2:
        section.add("queue_timeout", duration(connect.words[2]), connect.number)


def _times(proxy: Proxy, section: DraftSection, clients: Sequence[Proxy], used: set[int]) -> None:
    def lines(*names: str) -> list[tuple[str, ConfigLine]]:
        found = [
            (duration(line.words[2]), line)
            for name in names
            for owner in ((proxy,) if name not in {"client", "client-fin"} else clients)
            if (line := owner.value("timeout", name))
        ]
        used.update(
            line.number
            for name in names
            for owner in (proxy, *clients)
            for line in owner.all("timeout", name)
        )
        return sorted(found, key=lambda pair: seconds(pair[0]))

    idle = lines("client", "server")
    used.update(line.number for line in proxy.all("option", "independent-streams"))
    given = {
        "connect_timeout": lines("connect"),
        # Once bytes go both ways, the one for tunnels is the only one.
        "idle_timeout": lines("tunnel") or idle,
        "half_close_timeout": lines("client-fin", "server-fin"),
        "queue_timeout": lines("queue"),
    }
    if proxy.all("option", "independent-streams") and not lines("tunnel"):
        given["upload_idle_timeout"] = lines("client")
        given["download_idle_timeout"] = lines("server")
    for key, found in given.items():
        for text, line in found[:1]:
            section.add(key, text, line.number)
