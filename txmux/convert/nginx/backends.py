"""The destinations of ``proxy_pass``, with the other ``proxy_...`` directives, as backends."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from txmux.convert.nginx.scope import DirectiveScope, each
from txmux.convert.nginx.upstreams import (
    UpstreamGroup,
    add_members,
    read_group,
    single,
    split_group,
)
from txmux.convert.nginx.values import Value, duration, plain, shown
from txmux.convert.routes import CLOSE
from txmux.convert.terms import InexpressibleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.convert.nginx.reader import Directive
    from txmux.convert.nginx.variables import Variables
    from txmux.convert.writer import Draft, DraftSection

_FAR = 3
"""Servers that txmux tries by itself."""

_SETTINGS = (
    "proxy_bind",
    "proxy_connect_timeout",
    "proxy_download_rate",
    "proxy_next_upstream",
    "proxy_next_upstream_timeout",
    "proxy_next_upstream_tries",
    "proxy_protocol",
    "proxy_requests",
    "proxy_responses",
    "proxy_ssl",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_name",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_verify",
    "proxy_timeout",
    "proxy_upload_rate",
    "health_check",
    "health_check_timeout",
    "resolver",
)
"""What a backend depends on."""

_WITHOUT_COUNTERPART = {
    "proxy_next_upstream_timeout": "connect_timeout is for each attempt, and retries says how many there are",
    "proxy_ssl_ciphers": "txmux chooses the ciphers",
    "proxy_ssl_conf_command": "",
    "proxy_ssl_protocols": "TLS 1.2 and 1.3 are spoken",
    "proxy_ssl_verify_depth": "",
    "resolver_timeout": "a name server has 1 s for its answer, and 3 s in a second round",
}


class Backends:
    """The backends of a file, made at first use."""

    def __init__(self, directives: Iterable[Directive], draft: Draft, variables: Variables) -> None:
        self._draft = draft
        self._variables = variables
        self._groups = {d.value.lower(): read_group(d) for d in directives if d.name == "upstream"}
        self._made: dict[object, DraftSection] = {}

    def outcome(
        self, value: Value, scope: DirectiveScope, line: int, *, by_name: bool, is_udp: bool
    ) -> str:
        """Return the name of the backend; `by_name`: nginx looks names up for each client."""
        split = self._variables.shares(value)
        text = plain(value)
        if split:
            group = split_group(split, self._group)
        elif text is None:
            raise InexpressibleError(f"{shown(value)} is put together for each client")
        elif not text:
            return CLOSE
        else:
            group = self._group(text, line)
        if not group.members:
            raise InexpressibleError(f"{group.name} has no server")
        settings = [str(scope.get(name)) for name in _SETTINGS]
        named = by_name and (text or "").lower() not in self._groups and _has_name(group)
        key = (group, tuple(settings), named, is_udp)
        if key not in self._made:
            section = self._made[key] = self._draft.section("backend", group.name, group.line)
            self._fill(section, group, scope, named=named, is_udp=is_udp)
        return self._made[key].name

    def _group(self, text: str, line: int) -> UpstreamGroup:
        return self._groups.get(text.lower()) or single(text, line)

    def _fill(
        self,
        section: DraftSection,
        group: UpstreamGroup,
        scope: DirectiveScope,
        *,
        named: bool,
        is_udp: bool,
    ) -> None:
        group.report(self._draft, section)
        add_members(group, section, self._draft, is_udp=is_udp)
        self._retries(section, group, scope)
        if not is_udp:
            scope.add(section, "connect_timeout", "proxy_connect_timeout", "60s")
        scope.add(section, "idle_timeout", "proxy_timeout", "10m")
        if is_udp:
            self._datagrams(section, group, scope)
        else:
            self._streams(section, group, scope)
        self._source(section, scope)
        if named:
            self._resolver(section, group, scope)
        each(
            scope,
            _WITHOUT_COUNTERPART,
            lambda line, message: self._draft.warn(line, message, section),
        )

    def _datagrams(
        self, section: DraftSection, group: UpstreamGroup, scope: DirectiveScope
    ) -> None:
        answers = scope.text("proxy_responses")
        if answers.isdecimal() and answers != "0":
            section.add("answers", answers, scope.line("proxy_responses"))
        elif answers:
            message = f"proxy_responses {answers}: has no counterpart; see unanswered_timeout"
            self._draft.warn(scope.line("proxy_responses"), message, section)
        if scope.is_on("proxy_protocol"):
            section.add("proxy_protocol", "v2", scope.line("proxy_protocol"))
            section.add("proxy_every", "first", scope.line("proxy_protocol"))
        if group.check is not None:
            group.check.write(section, self._draft, is_udp=True)
        for name in ("proxy_requests", "health_check"):
            directive = scope.get(name)
            if directive is not None:
                message = f"{directive}: has no counterpart for UDP that is known here"
                self._draft.look(directive.line, message, section)

    def _streams(self, section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
        for key in ("upload_rate", "download_rate"):
            self._rate(section, key, scope)
        if scope.is_on("proxy_protocol"):
            section.add("proxy_protocol", "v1", scope.line("proxy_protocol"))
        self._tls(section, group, scope)
        self._check(section, scope)
        if group.check is not None and "check" not in section.entries:
            group.check.write(section, self._draft)

    def _retries(self, section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
        tries = scope.text("proxy_next_upstream_tries", "0")
        line = scope.line("proxy_next_upstream_tries") or scope.line("proxy_next_upstream")
        if not scope.is_on("proxy_next_upstream", default=True):
            section.add("retries", "0", line)
        elif tries.isdecimal() and tries != "0":
            section.add("retries", str(int(tries) - 1), line)
        elif len(group.members) > _FAR:
            section.add("retries", str(len(group.members) - 1), group.line)

    def _rate(self, section: DraftSection, key: str, scope: DirectiveScope) -> None:
        text = scope.text(f"proxy_{key}", "0")
        if text != "0":
            scope.add(section, key, f"proxy_{key}", "", sized=True)
            for item in section.entries.get(key, ())[:1]:
                section.entries.pop(key)
                section.add(key, f"{item.text}/s", item.line)

    def _source(self, section: DraftSection, scope: DirectiveScope) -> None:
        directive = scope.get("proxy_bind")
        if directive is None or directive.value == "off":
            return
        address, transparent = directive.value, "transparent" in directive.parameters
        host = address.rpartition(":")[0] if "$remote_port" in address else address
        if transparent and host in {"$remote_addr", "${remote_addr}"}:
            section.add("source", "client", directive.line)
        elif "$" in address:
            message = f"{directive}: is left out: it is another address for each client"
            self._draft.look(directive.line, message, section)
        else:
            section.add("source", address, directive.line)
            if transparent:
                message = f"{directive}: the address has to be one of this machine"
                self._draft.warn(directive.line, message, section)

    def _tls(self, section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
        if not scope.is_on("proxy_ssl"):
            return
        line = scope.line("proxy_ssl")
        section.add("tls", "yes", line)
        name = scope.text("proxy_ssl_name")
        if "$" in name:
            message = f"proxy_ssl_name {name}: is left out: it is another name for each client"
            self._draft.look(scope.line("proxy_ssl_name"), message, section)
            name = ""
        if not name and group.name.lower() in self._groups:
            name = group.name
        if scope.is_on("proxy_ssl_verify"):
            if name:
                section.add("tls_name", name, scope.line("proxy_ssl_name") or group.line)
        else:
            if name and scope.get("proxy_ssl_name"):
                section.add("tls_name", name, scope.line("proxy_ssl_name"))
            message = (
                "proxy_ssl without proxy_ssl_verify: nginx takes any certificate, and txmux verifies it; name in "
                "tls_ca its authority, and in tls_name its name, unless the system trusts it for the server's host"
            )
            self._draft.look(line, message, section)
        trusted = scope.get("proxy_ssl_trusted_certificate")
        if trusted:
            section.add("tls_ca", scope.path(trusted.value), trusted.line)
        for part in ("proxy_ssl_certificate", "proxy_ssl_certificate_key"):
            own = scope.get(part)
            if own:
                section.add("tls_client_certificate", scope.path(own.value), own.line)

    def _check(self, section: DraftSection, scope: DirectiveScope) -> None:
        directive = scope.get("health_check")
        if directive is None:
            return
        given = dict(word.partition("=")[::2] for word in directive.parameters)
        words = ["tcp"]
        for name, key, default in (
            ("interval", "interval", "5s"),
            ("passes", "rise", "1"),
            ("fails", "fall", "1"),
            ("port", "port", ""),
        ):
            value = given.pop(name, default)
            if value:
                words.append(f"{key}={duration(value) if key == 'interval' else value}")
        words.append(f"timeout={duration(scope.text('health_check_timeout', '5s'))}")
        section.add("check", " ".join(words), directive.line)
        if given:
            message = f"{directive}: no counterpart of {', '.join(given)}"
            self._draft.look(directive.line, message, section)

    def _resolver(self, section: DraftSection, group: UpstreamGroup, scope: DirectiveScope) -> None:
        directive = scope.get("resolver")
        if directive is None:
            message = f"{group.members[0].place}: without a resolver, nginx closes its clients; txmux asks the system's"
            self._draft.warn(group.line, message, section)
            return
        for word in directive.parameters:
            name, equals, value = word.partition("=")
            if not equals:
                section.add("resolvers", word, directive.line)
            elif name == "valid":
                section.add("resolve", duration(value), directive.line)
            elif name in {"ipv4", "ipv6"} and value == "off":
                message = f"{directive}: no counterpart of {word}"
                self._draft.warn(directive.line, message, section)


def _has_name(group: UpstreamGroup) -> bool:
    """Return whether a group is one server whose name is to be looked up."""
    place = group.members[0].place
    if len(group.members) > 1 or place.startswith("unix:"):
        return False
    try:
        ipaddress.ip_address(place.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False
