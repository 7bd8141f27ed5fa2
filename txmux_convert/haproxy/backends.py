"""The backends of an ``haproxy.cfg``: how servers are chosen and connected."""

from collections.abc import Sequence

from txmux.transport import bracketed
from txmux_convert.haproxy.binds import address
from txmux_convert.haproxy.checks import add_check
from txmux_convert.haproxy.lines import duration, seconds
from txmux_convert.haproxy.servers import BackendDraft, ServerLine, add_servers
from txmux_convert.writer import ConfigLine

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
"""HAProxy's queue has no limit."""


def fill_backend(backend: BackendDraft) -> None:
    servers = add_servers(backend)
    _balance(backend, servers)
    add_check(backend, servers)
    _source(backend, servers)
    _times(backend)
    _queue(backend, servers)
    _slow_start(backend, servers)
    retries = backend.value("retries")
    if retries:
        backend.section.add("retries", retries.value, retries)


def _balance(backend: BackendDraft, servers: Sequence[ServerLine]) -> None:
    proxy, section, line = backend.proxy, backend.section, backend.value("balance")
    backend.use(*proxy.all("option", "allbackups"))
    backups = [s for s in servers if "backup" in s.parameters and not s.is_down]
    active = [s for s in servers if "backup" not in s.parameters]
    # A template may stand for several servers.
    several = len(active) > 1 or any(s.line.name == "server-template" for s in active)
    takes_turns = len(backups) > 1 and not proxy.all("option", "allbackups")
    if takes_turns and len(active) <= 1:
        # Of several backups HAProxy uses the first one that is up.
        section.add("balance", "first", backups[1].line)
        return
    if takes_turns:
        section.flag(
            backups[1].line,
            "HAProxy uses the first backup that is up, and txmux all of them; "
            "keep one, or let them take turns",
        )
    sticks = [line for line in proxy.lines if line.words in _BY_SOURCE]
    on_source = [line for line in sticks if line.value == "on"]
    if on_source and len(servers) == 1 and not several:  # which has all clients
        backend.use(*on_source, *proxy.all("stick-table"))
    elif sticks and several and len(proxy.all("stick")) == 1:
        backend.use(*sticks, *proxy.all("stick-table"))
        section.warn(
            sticks[0],
            "clients are distributed by a hash of their address, and no table of them is stored",
        )
        section.add("balance", "source-hash", sticks[0])
    elif several or (not active and len(servers) > 1):
        name = line.value.partition("(")[0] if line else "roundrobin"
        name = "source" if line and line.words[1:] == ("hash", "src") else name
        if name in _BALANCE:
            section.add("balance", _BALANCE[name], line or proxy.number)
        else:
            section.flag(line or proxy.number, "has no counterpart; round-robin is used")


def _source(backend: BackendDraft, servers: Sequence[ServerLine]) -> None:
    section, line = backend.section, backend.value("source")
    whole = " ".join(line.words[1:]) if line else ""
    sources = {server.parameters.get("source", whole): server.line.number for server in servers}
    if len(sources) > 1:
        message = f"source: is left out: servers of a [backend] have the same, and these differ: {', '.join(sources)}"
        section.flag(max(sources.values()), message)
        return
    for text, number in sources.items():
        where, _, client = text.partition(" usesrc ")
        host, ports = address(where) or (where, "")
        if "-" in ports:
            host = f"{bracketed(host)}:{ports}"
        if text:
            at = number if text != whole or line is None else line.number
            section.add("source", "client" if client else host, at)


def _queue(backend: BackendDraft, servers: Sequence[ServerLine]) -> None:
    """Write a queue for full servers, as HAProxy has one."""
    limited = [s for s in servers if s.parameters.get("maxconn", "0") != "0"]
    if not limited:
        return
    section, clients = backend.section, backend.clients
    most = [line for client in clients if (line := client.value("maxconn"))]
    numbers = [int(line.value) for line in most if line.value.isdecimal()]
    is_limited = len(numbers) == len(clients) and all(numbers) and clients
    size = min(sum(numbers), _WITHOUT_LIMIT) if is_limited else _WITHOUT_LIMIT
    section.add("queue", str(size), limited[0].line)
    waits, connect = (backend.proxy.value("timeout", name) for name in ("queue", "connect"))
    if waits and not (connect and duration(waits.words[2]) == duration(connect.words[2])):
        section.warn(waits, "clients wait for connect_timeout at most")


def _slow_start(backend: BackendDraft, servers: Sequence[ServerLine]) -> None:
    times = {duration(server.parameters.get("slowstart", "0")): server.line for server in servers}
    longest = max(times, key=seconds, default="")
    if not seconds(longest):
        return
    backend.section.add("slow_start", longest, times[longest])
    if len(times) > 1:
        message = "slowstart: servers of a [backend] have the same; the longest is used for all"
        backend.section.warn(times[longest], message)


def _times(backend: BackendDraft) -> None:
    proxy, clients = backend.proxy, backend.clients

    def lines(*names: str) -> list[tuple[str, ConfigLine]]:
        pairs = [
            (duration(line.words[2]), line)
            for name in names
            for owner in ((proxy,) if name not in {"client", "client-fin"} else clients)
            if (line := owner.value("timeout", name))
        ]
        for name in names:
            backend.use(
                *(line for owner in (proxy, *clients) for line in owner.all("timeout", name))
            )
        return sorted(pairs, key=lambda pair: seconds(pair[0]))

    idle = lines("client", "server")
    given = {
        "connect_timeout": lines("connect"),
        # Once bytes go both ways, the one for tunnels is the only one.
        "idle_timeout": lines("tunnel") or idle,
    }
    independent = proxy.all("option", "independent-streams")
    backend.use(*independent)
    if independent and not lines("tunnel"):
        message = "idle_timeout counts the bytes of both sides together"
        backend.section.warn(independent[0], message)
    for _, line in lines("client-fin", "server-fin"):
        backend.section.warn(line, "is one minute, or idle_timeout where that is less")
    lines("queue")
    for key, pairs in given.items():
        for text, line in pairs[:1]:
            backend.section.add(key, text, line)
