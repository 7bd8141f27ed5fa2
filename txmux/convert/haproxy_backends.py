"""The servers of an ``haproxy.cfg``, and how they are connected."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from txmux.convert.haproxy_lines import duration
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints, values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txmux.convert.haproxy_lines import Line, Proxy
    from txmux.convert.writer import Draft, Section

__all__ = ["address", "fill_backend", "unix_path"]

_ADDRESS = re.compile(r"(?:(?:ipv[46]|tcp[46]?)@)?(?P<host>.*):(?P<port>[^:]*)")
_BALANCE = {
    "roundrobin": "round-robin",
    "static-rr": "round-robin",
    "leastconn": "least-connections",
    "source": "source-hash",
    "random": "random",
    "first": "first",
}
_CHECKS = {"httpchk": "http", "redis-check": "redis", "pgsql-check": "postgres"}
_FLAGS = frozenset(
    {
        *("agent-check", "allow-0rtt", "backup", "check", "check-send-proxy", "check-ssl"),
        *("check-via-socks4", "disabled", "enabled", "force-sslv3", "force-tlsv10", "force-tlsv11"),
        *("force-tlsv12", "force-tlsv13", "non-stick", "send-proxy", "send-proxy-v2"),
        *("send-proxy-v2-ssl", "send-proxy-v2-ssl-cn", "ssl", "stick", "tfo", "tls-tickets"),
    }
)
_OUTSIDE = {"ssl": "TLS to the server", "socks4": "a SOCKS proxy"}
_SPEAKS = {"send-proxy": "v1", "send-proxy-v2": "v2"}
_SERVER_KEYS = {"weight": "weight", "maxconn": "max_connections"}
_UNDERSTOOD = frozenset(
    {
        *_SERVER_KEYS,
        *_SPEAKS,
        "backup",
        "check",
        "disabled",
        "enabled",
        "fall",
        "inter",
        "rise",
        "source",
    }
)


def address(text: str) -> tuple[str, str] | None:
    """Take an address apart.

    Returns:
        The host, without brackets and empty for every address, and the port; ``None`` for anything else.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or "@" in found["host"]:
        return None
    host = found["host"].removeprefix("[").removesuffix("]")
    return ("::" if text.startswith("ipv6@") and host in {"", "*"} else host), found["port"]


def unix_path(text: str) -> str:
    """Give the path of a UNIX socket, or nothing."""
    path = text.removeprefix("unix@")
    return path if path.startswith("/") else ""


@attrs.frozen
class _Server:
    line: Line
    place: str
    parameters: dict[str, str]

    @property
    def proxy_protocol(self) -> str:
        spoken = [v for name, v in _SPEAKS.items() for given in self.parameters if given == name]
        if any(name.startswith("send-proxy-v2-") for name in self.parameters):
            spoken.append("v2")
        return spoken[-1] if spoken else "off"


def fill_backend(
    proxy: Proxy, section: Section, clients: Sequence[Proxy], draft: Draft, used: set[int]
) -> None:
    """Write the keys of a ``[backend]``.

    Args:
        proxy: The backend, or what is a frontend, too.
        section: Where they go.
        clients: Whose clients are led there.
        draft: Where the section belongs.
        used: The numbers of the lines that need no more to be told of.
    """
    servers = _servers(proxy, section, draft, used)
    versions = [server.proxy_protocol for server in servers]
    for server in servers:
        if server.proxy_protocol != versions[0]:
            draft.warn(
                server.line.number,
                f"{server.line}: is left out; servers of a [backend] get the same PROXY header, and the first "
                f"one has proxy_protocol = {versions[0]}",
                section,
            )
        else:
            _add_server(server, section, draft)
    if servers and versions[0] != "off":
        section.add("proxy_protocol", versions[0], servers[0].line.number)
    _balance(proxy, section, servers, used)
    _check(proxy, section, servers, used)
    _source(proxy, section, servers, used)
    _times(proxy, section, clients, used)
    retries = proxy.value("retries")
    if retries:
        used.add(retries.number)
        section.add("retries", retries.words[1], retries.number)


def _servers(proxy: Proxy, section: Section, draft: Draft, used: set[int]) -> list[_Server]:
    found: list[_Server] = []
    defaults: list[str] = []
    for line in proxy.lines:
        if line.words[0] == "default-server":
            used.add(line.number)
            defaults += line.words[1:]
        if line.words[0] != "server" or len(line.words) < 3:
            continue
        used.add(line.number)
        server = _Server(line, line.words[2], _parameters([*defaults, *line.words[3:]]))
        beyond = [what for name, what in _OUTSIDE.items() if name in server.parameters]
        if beyond:
            message = (
                f"{line}: is left out; it is reached by {beyond[0]}, which is not supported yet"
            )
            draft.warn(line.number, message, section)
        else:
            found.append(server)
    return found


def _parameters(words: Sequence[str]) -> dict[str, str]:
    """Read the parameters of a server, without those that others have taken back."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        name = rest.pop(0)
        if name.startswith("no-"):
            found.pop(name.removeprefix("no-"), None)
            continue
        value = "" if name in _FLAGS or not rest else rest.pop(0)
        if name == "source" and rest[:1] == ["usesrc"]:
            value = " ".join([value, *rest[:2]])
            del rest[:2]
        found[name] = value
    return found


def _add_server(server: _Server, section: Section, draft: Draft) -> None:
    place, number = _place(server.place), server.line.number
    if not place:
        message = f"{server.line}: is left out; it has no address and port, or path"
        draft.warn(number, message, section)
        return
    disabled = "disabled" in server.parameters
    if disabled and _refused(f"{place} down"):
        draft.warn(number, f"{server.line}: is left out; it is disabled", section)
        return
    wanted = [
        *(
            f"{key}={server.parameters[n]}"
            for n, key in _SERVER_KEYS.items()
            if n in server.parameters
        ),
        *(["backup"] if "backup" in server.parameters else []),
        *(["down"] if disabled else []),
    ]
    text = place
    for word in wanted:
        why = _refused(f"{place} {word}")
        if why:
            draft.warn(number, f"server = {place} {word}: {why}", section)
        else:
            text += f" {word}"
    section.add("server", text, number)
    unknown = [name for name in server.parameters if name not in _UNDERSTOOD]
    if unknown:
        draft.warn(number, f"{server.place}: no counterpart of {', '.join(unknown)}", section)


def _refused(text: str) -> str:
    try:
        endpoints.server(text)
    except InvalidValueError as error:
        return error.messages[-1].removesuffix("; remove it")
    return ""


def _place(text: str) -> str:
    path, found = unix_path(text), address(text)
    if path:
        return f"unix:{path}"
    if found is None or not found[0] or not found[1].isdecimal():
        return ""
    host = f"[{found[0]}]" if ":" in found[0] else found[0]
    return f"{host}:{found[1]}"


def _balance(proxy: Proxy, section: Section, servers: Sequence[_Server], used: set[int]) -> None:
    line = proxy.value("balance")
    if line:
        used.add(line.number)
    if sum("backup" not in server.parameters for server in servers) > 1:
        name = line.words[1].partition("(")[0] if line else "roundrobin"
        number = line.number if line else proxy.number
        section.add("balance", _BALANCE.get(name, name), number)


def _check(proxy: Proxy, section: Section, servers: Sequence[_Server], used: set[int]) -> None:
    kinds = [line for line in proxy.all("option") if line.words[1:2] and _is_check(line.words[1])]
    used.update(line.number for line in kinds)
    checked = [server for server in servers if "check" in server.parameters]
    if not checked:
        return
    words = [_CHECKS.get(kinds[-1].words[1], "tcp") if kinds else "tcp"]
    if words == ["http"]:
        words += [f"path={word}" for word in kinds[-1].words[2:] if word.startswith("/")][:1]
    parameters = checked[0].parameters
    if "inter" in parameters:
        words.append(f"interval={duration(parameters['inter'])}")
    words += [f"{name}={parameters[name]}" for name in ("rise", "fall") if name in parameters]
    section.add("check", " ".join(words), checked[0].line.number)


def _is_check(option: str) -> bool:
    return option.endswith(("chk", "-check"))


def _source(proxy: Proxy, section: Section, servers: Sequence[_Server], used: set[int]) -> None:
    line = proxy.value("source")
    if line:
        used.add(line.number)
        own = [(" ".join(line.words[1:]), line.number)]
    else:
        own = [(s.parameters["source"], s.line.number) for s in servers if "source" in s.parameters]
    for text, number in own[:1]:
        where, _, client = text.partition(" usesrc ")
        found = address(where)
        host = found[0] if found else where
        section.add("source", "client" if client else host, number)


def _times(proxy: Proxy, section: Section, clients: Sequence[Proxy], used: set[int]) -> None:
    def lines(*names: str) -> list[tuple[str, Line]]:
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
        return sorted(found, key=lambda pair: _seconds(pair[0]))

    idle = lines("client", "server")
    for key, given in (
        ("connect_timeout", lines("connect")),
        # Once bytes go both ways, the one for tunnels is the only one.
        ("idle_timeout", lines("tunnel") or idle),
        ("half_close_timeout", lines("client-fin", "server-fin")),
        ("queue_timeout", lines("queue")),
    ):
        for text, line in given[:1]:
            section.add(key, text, line.number)


def _seconds(text: str) -> float:
    try:
        return values.duration(text)
    except InvalidValueError:
        return 0
