"""The ``server`` lines of an ``haproxy.cfg``: addresses, TLS and PROXY protocol headers."""

import re
from collections.abc import Iterator, Mapping, Sequence

import attrs

from txmux.rules.model import LOCAL, PORT
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints
from txmux.transport import bracketed, is_address
from txmux_convert.haproxy.binds import address, is_multipath, ports, unix_path
from txmux_convert.haproxy.lines import Proxy
from txmux_convert.values import COMMON_NAME, is_public
from txmux_convert.writer import ConfigLine, DraftSection

SPEAKS: Mapping[str, str] = {"send-proxy": "v1", "send-proxy-v2": "v2"}
PARAMETERS = frozenset(
    {*SPEAKS, "alpn", "ca-file", "crt", "proxy-v2-options", "sni", "ssl", "verify", "verifyhost"}
)
"""Parameters of the header and of TLS, which `header` and `encryption` read."""

_FLAGS = {
    *("agent-check", "allow-0rtt", "backup", "check", "check-reuse-pool", "check-send-proxy"),
    *("check-sni-auto", "check-ssl", "check-via-socks4", "disabled", "enabled", "force-sslv3"),
    *("force-tlsv10", "force-tlsv11", "force-tlsv12", "force-tlsv13", "non-stick"),
    *("renegotiate", "send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"),
    *("sni-auto", "ssl", "ssl-reuse", "stick", "strict-maxconn", "tfo", "tls-tickets"),
}
_OUTSIDE = {"namespace": "it is in another network namespace"}
_KEYS = {"weight": "weight", "maxconn": "max_connections"}
_ELSEWHERE = {
    *("addr", "agent-check", "check", "check-alpn", "check-proto", "check-send-proxy"),
    *("check-sni", "check-ssl", "check-via-socks4", "fall", "inter", "port", "rise"),
    *("source", "track"),
}
"""Parameters that `checks` and `backends` read."""

TAKEN = {
    *(*_KEYS, *PARAMETERS, *_ELSEWHERE, "backup", "disabled", "on-marked-down", "on-marked-up"),
    *("resolvers", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn", "slowstart", "socks4"),
}
WITHOUT_EFFECT = {
    "enabled": "it is, unless disabled is there",
    "id": "a number for the statistics",
    "init-addr": "a name without an address is looked up until it has one",
}
"""Parameters that have no counterpart and no report, and why they need none."""

PLACES = {"dispatch": 1, "server": 2, "server-template": 3}
"""Directives with a server's address, and the number of that word."""

_MOST_WEIGHT = 256  # of HAProxy's
_ANY_HOST = frozenset({"", "*", "0.0.0.0", "::"})  # noqa: S104 - not to listen there


@attrs.frozen
class ServerLine:
    """A server with its effective parameters."""

    line: ConfigLine
    address: str
    parameters: dict[str, str]

    @property
    def is_down(self) -> bool:
        return "disabled" in self.parameters or self.parameters.get("weight") == "0"

    @property
    def is_anywhere(self) -> bool:
        return (address(self.address) or (self.address, ""))[0] in _ANY_HOST


@attrs.frozen
class BackendDraft:
    """A backend, or a section that is a frontend, too, while it is converted.

    Attributes:
        clients: The frontends that forward to it.
        used: Numbers of the lines that are converted or reported.
    """

    proxy: Proxy
    section: DraftSection
    clients: Sequence[Proxy]
    used: set[int]

    def use(self, *lines: ConfigLine) -> None:
        self.used.update(line.number for line in lines)

    def value(self, *words: str) -> ConfigLine | None:
        line = self.proxy.value(*words)
        if line:
            self.use(line)
        return line


def add_servers(backend: BackendDraft) -> list[ServerLine]:
    """Write the servers that txmux can have, and return them."""
    port, section = _only_port(backend.clients), backend.section
    has_alpn = any(
        "alpn" in line.words for client in backend.clients for line in client.all("bind")
    )
    same: Keys = {}
    added: list[ServerLine] = []
    for server in list(_servers(backend)):  # their own messages come first
        secure, undecided = encryption(server.parameters, server.address)
        keys = {**header(server.parameters, has_alpn=has_alpn), **secure}
        if is_multipath(server.address):
            keys["mptcp"] = "yes"
        if server.parameters.get("resolvers"):
            keys["resolvers"] = server.parameters["resolvers"].replace(",", ", ")
        if "socks4" in server.parameters:
            keys["via"] = f"socks4://{server.parameters['socks4']}"
        same = same if added else keys
        if added and server.is_anywhere != added[0].is_anywhere:
            why = "a [backend] has either servers at the address that the client connected to, or others"
            section.flag(server.line, f"is left out; {why}")
        elif keys != same:
            names = ", ".join(sorted({name for name, _ in keys.items() ^ same.items()}))
            why = (
                f"servers of a [backend] are spoken to in the same way, and these differ in {names}"
            )
            section.flag(server.line, f"is left out; {why}")
        elif _add(server, port, section):
            added.append(server)
            if undecided:
                section.flag(server.line.number, f"{server.address}: {undecided}")
    for key, value in same.items() if added else ():
        section.add(key, value, added[0].line)
    return added


def _only_port(clients: Sequence[Proxy]) -> int | None:
    """Return the only port of the clients, which is that of servers without one; ``None`` if there are several."""
    numbers = {port for client in clients for line in client.all("bind") for port in ports(line)}
    port = numbers.pop() if len(numbers) == 1 else ""
    return int(port) if port.isdecimal() else None


def _servers(backend: BackendDraft) -> Iterator[ServerLine]:
    defaults: list[str] = []
    for line in backend.proxy.lines:
        if line.name == "default-server":
            backend.use(line)
            defaults += line.words[1:]
        place = PLACES.get(line.name, 0)
        is_template = line.name == "server-template"
        if not place or (len(line.words) <= place and not is_template):
            continue
        backend.use(line)
        if is_template and (why := _wrong_template(line)):
            backend.section.flag(line, f"is left out; HAProxy refuses it, too: {why}")
            continue
        parameters = _parameters([*defaults, *line.words[place + 1 :]])
        beyond = [why for name, why in _OUTSIDE.items() if name in parameters]
        if beyond:
            backend.section.flag(line, f"is left out; {beyond[0]}")
        else:
            yield ServerLine(line, line.words[place], parameters)


def _wrong_template(line: ConfigLine) -> str:
    if len(line.words) <= PLACES[line.name]:
        return "it names no address"
    low, _, high = line.words[2].partition("-")
    is_range = low.isdecimal() and (high or low).isdecimal() and 0 < int(high or low) >= int(low)
    return "" if is_range else f"{line.words[2]!r} is no number of servers, nor a range as 1-3"


def only_server(proxy: Proxy, name: str) -> Proxy | None:
    """Return a backend with only the server of that name, whatever its weight; ``None`` if there is none."""
    lines = [line for line in proxy.all("server") if line.value == name]
    if not lines:
        return None
    words = list(lines[0].words)
    for word in ("backup", "weight"):
        if word in words[3:]:
            place = words.index(word, 3)
            del words[place : place + 1 + (word == "weight")]
    others = [line for line in proxy.lines if line.name not in PLACES]
    return attrs.evolve(proxy, lines=(*others, attrs.evolve(lines[0], words=tuple(words))))


def _parameters(words: Sequence[str]) -> dict[str, str]:
    """Read the parameters of a server; ``no-`` takes an earlier one back."""
    parameters: dict[str, str] = {}
    rest = list(words)
    while rest:
        name = rest.pop(0)
        if name.startswith("no-"):
            parameters.pop(name.removeprefix("no-"), None)
            continue
        value = "" if name in _FLAGS or not rest else rest.pop(0)
        if name == "enabled":
            parameters.pop("disabled", None)
        if name == "source" and rest[:1] == ["usesrc"]:
            value = " ".join([value, *rest[:2]])
            del rest[:2]
        parameters[name] = value
    return parameters


def _add(server: ServerLine, port: int | None, section: DraftSection) -> bool:
    number = server.line.number
    place, why = _server_address(server.address, port)
    why = why or _refused(place) or _not_behind(server.parameters.get("socks4"), place)
    if why:
        section.flag(server.line, f"is left out; {why}")
        return False
    text = place
    for name, key in _KEYS.items():
        value = server.parameters.get(name, "")
        if not value or (name == "weight" and value == "0"):
            continue
        why = _refused(f"{place} {key}={value}")
        if name == "weight" and not (value.isdecimal() and int(value) <= _MOST_WEIGHT):
            why = f"HAProxy refuses it, too; a weight is from 0 to {_MOST_WEIGHT}"
        if why:
            section.flag(number, f"server = {place} {key}={value}: {why}")
        else:
            text += f" {key}={value}"
    text += " backup" if "backup" in server.parameters else ""
    text += " down" if server.is_down else ""
    section.add("server", text, number)
    unknown = [name for name in server.parameters if name not in {*TAKEN, *WITHOUT_EFFECT}]
    fields = server.parameters.get("proxy-v2-options", "").split(",")
    unknown += [f"proxy-v2-options {name}" for name in fields if name and name not in _TLVS]
    if unknown:
        section.warn(number, f"{server.address}: no counterpart of {', '.join(unknown)}")
    return True


def _refused(text: str) -> str:
    try:
        endpoints.server(text)
    except InvalidValueError as error:
        return error.messages[-1].removesuffix("; remove it")
    return ""


def _not_behind(proxy: str | None, server: str) -> str:
    """Return why a SOCKS proxy cannot connect to a server."""
    if proxy is None:
        return ""
    if not server.startswith(("unix:", "srv:", "[")):
        return _refused(proxy)
    return "a SOCKS 4 proxy connects to names and IPv4 addresses"


def _server_address(text: str, clients_port: int | None) -> tuple[str, str]:
    """Return a server's address in txmux, or why it has none."""
    path = unix_path(text)
    if path:
        return f"unix:{path}", ""
    host, port = address(text) or (text, "")
    if host.startswith("_"):
        return f"srv:{host}", ""
    if "@" in host:
        return "", "txmux has no such addresses"
    if port in {"", "0"} or port[0] in "+-":
        offset = int(port) if port.removeprefix("+").removeprefix("-").isdecimal() else 0
        if clients_port is None and (offset or host in _ANY_HOST):
            return "", "it has no port of its own, and its clients come to more than one"
        port = PORT if clients_port is None else str(clients_port + offset)
    return f"{LOCAL if host in _ANY_HOST else bracketed(host)}:{port}", ""


_FIXED = re.compile(r"str\((?P<name>[^()]*)\)")
_TLVS = {
    "authority": "authority",
    "cert-cn": "ssl",
    "crc32c": "crc32c",
    "ssl": "ssl",
    "unique-id": "unique-id",
}
Keys = dict[str, str]
"""Keys of ``[backend]``, the same for all its servers."""


def header(given: Mapping[str, str], *, has_alpn: bool = False) -> Keys:
    """Return the keys for the PROXY header of a server; HAProxy puts a negotiated protocol (`has_alpn`) into each of version 2."""
    spoken = [SPEAKS[name] for name in given if name in SPEAKS]
    has_ssl = any(name.startswith("send-proxy-v2-ssl") for name in given)
    if has_ssl:
        spoken.append("v2")
    if not spoken:
        return {}
    keys = {"proxy_protocol": spoken[-1]}
    if spoken[-1] == "v2":
        options = given.get("proxy-v2-options", "").split(",")
        fields = ["alpn"] * has_alpn + ["ssl"] * has_ssl
        fields += [_TLVS[name] for name in options if name in _TLVS]
        if fields:
            keys["proxy_tlvs"] = ", ".join(dict.fromkeys(fields))
    return keys


def encryption(given: Mapping[str, str], server: str) -> tuple[Keys, str]:
    """Return the keys for the TLS to a server, and what the user has to decide about it."""
    if "ssl" not in given:
        return {}, ""
    keys = {"tls": "yes"}
    sni = given.get("sni", "")
    fixed = _FIXED.fullmatch(sni)
    names = {n for n in (fixed["name"].strip("\"'") if fixed else "", given.get("verifyhost")) if n}
    if names:
        keys["tls_name"] = min(names)
    if given.get("ca-file", "@").startswith("@"):
        given = {**given, "ca-file": ""}
    for name, key in (("ca-file", "tls_ca"), ("crt", "tls_client_certificate"), ("alpn", "alpn")):
        if given.get(name):
            keys[key] = given[name]
    return keys, _difference(given, names, sni if not fixed else "", server)


def _difference(given: Mapping[str, str], names: set[str], sni: str, server: str) -> str:
    host = (address(server) or (server, ""))[0]
    if given.get("verify") == "none":
        return (
            "verify none: txmux always verifies the certificate of a server; name its authority in tls_ca, and in "
            "tls_name the name that it is for"
        )
    if sni:
        return f"sni {sni}: the name that is sent does not depend on the client; write tls_name"
    if len(names) > 1:
        return f"sni and verifyhost: the name that is sent is the one that is verified; these are {' and '.join(sorted(names))}"
    if not names and (is_address(host) or host.startswith(("/", "unix@"))):
        return "HAProxy verifies no name there; write in tls_name which one the certificate is for"
    return "" if is_public(given.get("ca-file", "")) else f"verify required: {COMMON_NAME}"
