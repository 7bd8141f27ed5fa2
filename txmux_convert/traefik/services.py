"""The services of routers, as backends."""

import re
from collections.abc import Iterable
from fractions import Fraction

import attrs

from txmux_convert.matching import escaped, option
from txmux_convert.terms import InexpressibleError
from txmux_convert.traefik.reader import Node
from txmux_convert.values import whole_weights
from txmux_convert.writer import Draft, DraftSection

_NUMBER = re.compile(r"-?[0-9]+")
_TIME = re.compile(r"([0-9.]+)(ms|s|m|h)")
_MOST_DEPTH = 10
_TIMES = {"interval": "30s", "timeout": "5s"}
"""Those of a check, and Traefik's defaults."""


def duration(text: str) -> str:
    """Write a time of Traefik, such as ``1m30s`` or a number of seconds, as a duration."""
    if _NUMBER.fullmatch(text):
        return f"{text}s"
    parts = _TIME.findall(text)
    if len(parts) < 2:
        return text
    length = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return f"{sum(float(number) * length[unit] for number, unit in parts):g}s"


@attrs.frozen
class _WeightedServer:
    address: Node
    balancer: Node
    share: Fraction


class Services:
    """Backends, created at first use; the prefix of servers is ``udp:`` for UDP services."""

    def __init__(
        self, services: dict[str, Node], transports: dict[str, Node], draft: Draft, prefix: str = ""
    ) -> None:
        self._prefix = prefix
        self._services = services
        self._transports = transports
        self._draft = draft
        self._made: dict[tuple[str, str], DraftSection] = {}

    def outcome(self, name: str, idle: str = "") -> str:
        name = name.partition("@")[0].lower()
        if (name, idle) not in self._made:
            servers = list(self._servers(name, Fraction(1), 0))
            if not servers:
                raise InexpressibleError(f"the service {name!r} has no servers here")
            section = self._draft.section("backend", name, self._services[name].line)
            self._made[name, idle] = section
            self._fill(section, servers)
            if idle:
                section.add("idle_timeout", idle)
                section.add("unanswered_timeout", idle)
        return self._made[name, idle].name

    def _servers(self, name: str, share: Fraction, depth: int) -> list[_WeightedServer]:
        service = self._services.get(name.partition("@")[0].lower())
        if service is None or depth > _MOST_DEPTH:
            raise InexpressibleError(f"there is no service {name!r} in the files")
        balancer = service.get("loadBalancer")
        addresses = balancer.get("servers").each()
        servers = [_WeightedServer(node, balancer, share / len(addresses)) for node in addresses]
        weighted = [
            (node, Fraction(text if (text := node.get("weight").text).isdecimal() else "1"))
            for node in service.get("weighted", "services").each()
        ]
        whole = sum(weight for _, weight in weighted)
        for node, weight in weighted:
            if weight > 0:
                inside = node.get("name").text
                servers += self._servers(inside, share * weight / whole, depth + 1)
        return servers

    def _fill(self, section: DraftSection, servers: list[_WeightedServer]) -> None:
        weights = whole_weights([server.share for server in servers])
        for server, weight in zip(servers, weights, strict=True):
            address = server.address.get("address")
            text = self._prefix + address.text
            section.add("server", f"{text} weight={weight}" if weight > 1 else text, address.line)
        if self._prefix:
            return
        if len(servers) > 1:
            # Whom a server does not take, Traefik closes.
            section.add("eject", "off")
            section.add("retries", "0")
        first = servers[0].balancer
        header = first.get("proxyProtocol")
        if header.is_set:
            section.add("proxy_protocol", f"v{header.get('version').text or 2}", header.line)
        name = first.get("serversTransport").text.partition("@")[0].lower()
        transport = self._transports.get(name)
        timeout = transport.get("dialTimeout") if transport else first.get("dialTimeout")
        section.add("connect_timeout", duration(timeout.text or "30s"), timeout.line)
        self._tls(section, servers, transport)
        self._check(section, first.get("healthCheck"))
        if len({_kind(server) for server in servers}) > 1:
            message = "its servers are connected in different ways; what the first one has is used for all"
            section.flag(section.line, message)

    def _tls(
        self, section: DraftSection, servers: list[_WeightedServer], transport: Node | None
    ) -> None:
        used = servers[0].address.get("tls")
        if not used.is_set:
            return
        section.add("tls", "yes", used.line)
        settings = transport.get("tls") if transport else None
        if settings is None:
            return
        name = settings.get("serverName")
        if name.text:
            section.add("tls_name", name.text, name.line)
        self.add_files(section, "tls_ca", settings.get("rootCAs").each())
        self.add_pairs(section, "tls_client_certificate", settings.get("certificates").each())
        unverified = settings.get("insecureSkipVerify")
        if unverified.is_set:
            message = "txmux verifies the certificate; name its authority in tls_ca"
            section.flag(unverified.line, f"insecureSkipVerify: {message}")

    def _check(self, section: DraftSection, check: Node) -> None:
        if not check.is_set:
            return
        said = {key: check.get(key).text.encode().decode("latin-1") for key in ("send", "expect")}
        words = [option(key, escaped(text)) for key, text in said.items() if text]
        if not said["expect"]:
            words = ["tcp"]  # Traefik waits for no answer then
        words += [f"port={check.get('port').text}"] * bool(check.get("port").text)
        times = {key: duration(check.get(key).text or usual) for key, usual in _TIMES.items()}
        words += [f"{key}={text}" for key, text in times.items()]
        # Each check decides, in both directions.
        section.add("check", " ".join([*words, "rise=1", "fall=1"]), check.line)

    def add_files(self, section: DraftSection, key: str, files: Iterable[Node]) -> None:
        for file in files:
            section.add_path(key, file.text, file.line)

    def add_pairs(self, section: DraftSection, key: str, certificates: Iterable[Node]) -> None:
        """Write certificates, each with its private key."""
        for pair in certificates:
            self.add_files(section, key, map(pair.get, ("certFile", "keyFile")))


def _kind(server: _WeightedServer) -> tuple[str, ...]:
    balancer = server.balancer
    header = balancer.get("proxyProtocol")
    version = (header.get("version").text or "2") if header.is_set else ""
    return (version, balancer.get("serversTransport").text, server.address.get("tls").text)
