"""The frontends of an ``haproxy.cfg``: where they listen, and who is led where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.haproxy_acls import condition, read_acl
from txmux.convert.haproxy_backends import address, unix_path
from txmux.convert.haproxy_lines import duration
from txmux.convert.haproxy_terms import ALWAYS, NEVER, Condition, InexpressibleError, both
from txmux.convert.matching import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.convert.haproxy_lines import Line, Proxy
    from txmux.convert.haproxy_terms import Term
    from txmux.convert.writer import Draft, Section
    from txmux.interfaces import IProtocolMatcher

__all__ = ["Frontend", "Made"]

_BIND_VALUES = frozenset(
    {
        *("alpn", "backlog", "ca-file", "ciphers", "ciphersuites", "crl-file", "crt", "crt-list"),
        *("ecdhe", "gid", "group", "id", "interface", "level", "maxconn", "mode", "mss", "name"),
        *("namespace", "nbconn", "nice", "npn", "process", "proto", "ssl-max-ver", "ssl-min-ver"),
        *("tcp-ut", "thread", "uid", "user", "verify"),
    }
)
_UNDERSTOOD = frozenset(
    {"accept-proxy", "v4v6", "v6only", "name", "backlog", "maxconn", "defer-accept"}
)
_OPEN = ", and so the clients that it keeps out come in"
_CONTENT = {"accept": "", "reject": _OPEN, "silent-drop": _OPEN}
_CONNECTION = {**_CONTENT, "expect-proxy": ""}
_OPPOSITE = {"allow": "deny", "deny": "allow"}


@attrs.frozen
class Made:
    """What is made of a file so far.

    Attributes:
        draft: The rules.
        matchers: The matchers there are, by name.
        backends: The sections of the backends, by HAProxy's name.
        used: The numbers of the lines that need no more to be told of.
    """

    draft: Draft
    matchers: Mapping[str, IProtocolMatcher]
    backends: dict[str, Section] = attrs.field(factory=dict)
    used: set[int] = attrs.field(factory=set)


@attrs.define
class Frontend:
    """A frontend while it is converted.

    Attributes:
        proxy: It.
        made: What is made of the file.
        several: There are others.
    """

    proxy: Proxy
    made: Made
    several: bool
    listeners: list[Section] = attrs.field(factory=list)
    acls: dict[str, Condition | InexpressibleError] = attrs.field(factory=dict)
    choices: list[tuple[Condition, str, Line]] = attrs.field(factory=list)

    def convert(self) -> None:
        """Write its listeners and routes."""
        for line in self.proxy.all("bind"):
            self.made.used.add(line.number)
            self._bind(line)
        if not self.listeners:
            message = f"{self.proxy.kind} {self.proxy.name}: is left out; it listens nowhere"
            self.made.draft.warn(self.proxy.number, message)
            return
        self._read_acls()
        default = self._read_choices()
        self._listener_keys()
        self._connection_rules()
        rejected = self._content_rules(default)
        if not rejected:
            self._routes_of_choices(ALWAYS)
            for listener in self.listeners if default else ():
                listener.add("silent", default)
                listener.add("default", default)

    def _bind(self, line: Line) -> None:
        flags: dict[str, str] = {}
        rest = list(line.words[2:])
        while rest:
            name = rest.pop(0)
            flags[name] = rest.pop(0) if name in _BIND_VALUES and rest else ""
        if "ssl" in flags:
            message = f"{line}: is left out; to end TLS is not supported yet"
            self.made.draft.warn(line.number, message)
            return
        proxied = "accept-proxy" in flags
        for text in line.words[1].split(",") if len(line.words) > 1 else ():
            section = self._listener(line.number, proxied=proxied)
            section.add("endpoint", _endpoint(text, flags), line.number)
        unknown = [name for name in flags if name not in _UNDERSTOOD]
        if unknown:
            self.made.draft.warn(line.number, f"{line}: no counterpart of {', '.join(unknown)}")
        for name, key in (("backlog", "backlog"), ("maxconn", "max_connections")):
            if name in flags and self.listeners:
                self.listeners[-1].entries.pop(key, None)
                self.listeners[-1].add(key, flags[name], line.number)

    def _listener(self, number: int, *, proxied: bool) -> Section:
        for listener in self.listeners:
            if ("accept_proxy_from" in listener.entries) == proxied:
                return listener
        listener = self.made.draft.section("listen", self.proxy.name, number)
        if proxied:
            listener.add("accept_proxy_from", "0.0.0.0/0, ::/0", number)
        self.listeners.append(listener)
        return listener

    def _read_acls(self) -> None:
        for line in self.proxy.all("acl"):
            name = line.words[1] if len(line.words) > 1 else ""
            before = self.acls.get(name, ())
            try:
                found = read_acl(line.words[2:])
            except InexpressibleError as error:
                if not isinstance(before, InexpressibleError):
                    self.acls[name] = InexpressibleError(f"acl {name}: {error}")
            else:
                # Several of one name are alternatives.
                self.acls[name] = before if isinstance(before, Exception) else (*before, *found)

    def _condition(self, line: Line, start: int, consequence: str = "") -> Condition | None:
        """Read a condition; if it has no counterpart, say so."""
        self.made.used.add(line.number)
        try:
            return condition(line.words[start:], self.acls)
        except InexpressibleError as error:
            self._lost(line, str(error), consequence)
            return None

    def _lost(self, line: Line, why: str, consequence: str = "") -> None:
        message = f"{line}: is left out{consequence}: {why}"
        self.made.draft.warn(line.number, message, self.listeners[0])

    def _backend(self, line: Line) -> str:
        self.made.used.add(line.number)
        section = self.made.backends.get(line.words[1])
        if section is None:
            self._lost(line, f"there is no backend {line.words[1]!r} in the file")
        return section.name if section else ""

    def _read_choices(self) -> str:
        """Read who is led where, and give the backend of all others."""
        own = self.made.backends.get(self.proxy.name) if self.proxy.kind == "listen" else None
        default = own.name if own else ""
        line = self.proxy.value("default_backend")
        if line:
            default = self._backend(line) or default
        for line in self.proxy.all("use_backend"):
            found = self._condition(line, 2) if len(line.words) > 1 else None
            name = self._backend(line) if found else ""
            if found == ALWAYS and name:
                return name
            if found and name:
                self.choices.append((found, name, line))
        return default

    def _listener_keys(self) -> None:
        pairs = (("maxconn", "max_connections"), ("backlog", "backlog"))
        for name, key in pairs:
            line = self.proxy.value(name)
            if line:
                self.made.used.add(line.number)
                for listener in self.listeners:
                    if key not in listener.entries:
                        listener.add(key, line.words[1], line.number)
        delay = self.proxy.value("tcp-request", "inspect-delay")
        content = self.proxy.all("tcp-request", "content")
        for listener in self.listeners:
            if delay and len(delay.words) > 2:
                self.made.used.add(delay.number)
                listener.add("detect_timeout", duration(delay.words[2]), delay.number)
            elif not self.choices and not content:
                listener.notes.append(
                    "no route: nobody is kept waiting for the client's first byte"
                )
                listener.add("detect_timeout", "1ms")

    def _connection_rules(self) -> None:
        accepted: list[Term] = []
        for line in self.proxy.all("tcp-request"):
            _, layer, action, *_ = (*line.words, "", "")
            if layer not in {"connection", "session"} or action not in _CONNECTION:
                continue
            consequence = _CONNECTION[action]
            found = self._condition(line, 4 if action == "expect-proxy" else 3, consequence)
            if found is None:
                continue
            if any(term.matcher for term in found):
                self._lost(line, "no byte of the client is there yet", consequence)
            elif action == "expect-proxy":
                self._networks("accept_proxy_from", found, line, consequence)
            elif action == "accept" and found == ALWAYS:
                return
            elif action == "accept":
                accepted += found
            elif found == ALWAYS:
                self._networks("allow", tuple(accepted), line, consequence)
                return
            else:
                self._networks("deny", found, line, consequence)

    def _networks(self, key: str, found: Condition, line: Line, consequence: str) -> None:
        networks = [term.allowed for term in found if term.allowed and not term.excluded]
        chosen = key
        if len(found) == 1 and found[0].allowed is None and key in _OPPOSITE:
            chosen, networks = _OPPOSITE[key], [found[0].excluded]
        if len(networks) != len(found) or not networks:
            self._lost(line, "txmux has lists of networks only", consequence)
        elif chosen == "allow" and "allow" in self.listeners[0].entries:
            self._lost(line, "allow has the networks of another rule", consequence)
        else:
            for listener in self.listeners:
                for network in sorted({str(network) for some in networks for network in some}):
                    listener.add(chosen, network, line.number)

    def _content_rules(self, default: str) -> bool:
        """Write routes for who is accepted or rejected by content; tell if all others are rejected."""
        rules = [line for line in self.proxy.all("tcp-request", "content") if len(line.words) > 2]
        rules = [line for line in rules if line.words[2] in _CONTENT]
        refusing = [n for n, line in enumerate(rules) if line.words[2] != "accept"]
        for number, line in enumerate(rules):
            found = self._condition(line, 3, _CONTENT[line.words[2]])
            if found is None:
                continue
            if line.words[2] != "accept":
                if found == ALWAYS:
                    return True
                self._routes("close", found, "close", line)
            elif refusing and number < refusing[-1]:
                # Who is accepted is not asked by what rejects.
                self._routes_of_choices(found)
                if default:
                    self._routes(default, found, default, line)
                if found == ALWAYS:
                    return False
        return False

    def _routes_of_choices(self, accepted: Condition) -> None:
        for found, name, line in self.choices:
            self._routes(name, self._both(found, accepted, line), name, line)

    def _both(self, found: Condition, accepted: Condition, line: Line) -> Condition:
        try:
            return both(found, accepted)
        except InexpressibleError as error:
            self._lost(line, str(error))
            return NEVER

    def _routes(self, name: str, terms: Condition, outcome: str, line: Line) -> None:
        lines: dict[tuple[object, object], list[Term]] = {}
        for term in terms:
            why = refusal(str(term), self.made.matchers)
            if why:
                self._lost(line, f"match = {term}: {why}", _OPEN if outcome == "close" else "")
            else:
                lines.setdefault((term.allowed, term.excluded), []).append(term)
        for alternatives in lines.values():
            section = self.made.draft.section("route", name, line.number)
            for term in alternatives:
                section.add("match", str(term))
            for key, networks in (("from", term.allowed), ("not_from", term.excluded)):
                for network in sorted(map(str, networks or ())):
                    section.add(key, network)
            if self.several:
                for listener in self.listeners:
                    section.add("under", listener.name)
            section.add("backend", outcome)
            if not term.matcher:
                message = (
                    f"{line}: a client that says nothing is led by silent, which knows no networks"
                )
                self.made.draft.warn(line.number, message, section)


def _endpoint(text: str, flags: Mapping[str, str]) -> str:
    path, found = unix_path(text), address(text)
    if path:
        return f"unix:{path}"
    if found is None:
        return text
    host, port = found
    if host == "::" and "v4v6" in flags and "v6only" not in flags:
        return f":{port}"
    if ":" in host:
        return f"[{host}]:{port}"
    # An address that is left out is that of IPv4 only.
    return f"{'0.0.0.0' if host in {'', '*'} else host}:{port}"  # noqa: S104 - it is written, not opened
