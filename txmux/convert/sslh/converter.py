"""An ``sslh.cfg``, of sslh 1.17 to 2.x, as rules."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Any

from txmux.convert.matching import (
    glob_as_regex,
    is_searched,
    match_line,
    refusal,
    regex_text,
    searched,
)
from txmux.convert.sslh.group import Group
from txmux.convert.sslh.libconfig import read_libconfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from txmux.convert.writer import Draft, Section
    from txmux.interfaces import IProtocolMatcher

_MATCHERS = {"msrdp": "rdp", "anyprot": "any", "ssl": "tls"}
_UDP_ONLY = frozenset({"wireguard", "teamspeak"})
_NO_COUNTERPART = {
    "version": "",
    "numeric": "addresses are always written as numbers",
    "user": "the service manager chooses the user; see 'Run as a service'",
    "pidfile": "'twist' writes none; see 'Run as a service'",
    "chroot": "",
    "syslog_facility": "the log goes to the standard output; see 'Run as a service'",
    "syslog-facility": "the log goes to the standard output; see 'Run as a service'",
    "logfile": "write 'twist --log-file=FILE txmux', or access_log in [txmux]",
    "udp_max_connections": "txmux has no UDP",
    "prefix": "",
}


def convert_sslh(
    data: bytes,
    path: str,
    draft: Draft,
    matchers: Mapping[str, IProtocolMatcher],
    port_of: Callable[[str], int | None],
) -> None:
    """Make rules of an ``sslh.cfg`` for `txmux.convert.formats.convert`.

    Raises:
        ConvertError: It is no such file.
    """
    _Sslh(draft, matchers, port_of).convert(Group(draft, dict(read_libconfig(data, path)), line=1))


class _Sslh:
    def __init__(
        self,
        draft: Draft,
        matchers: Mapping[str, IProtocolMatcher],
        port_of: Callable[[str], int | None],
    ) -> None:
        self._draft = draft
        self._matchers = matchers
        self._port_of = port_of
        self._takes_headers = False

    def convert(self, top: Group) -> None:
        listen, protocols = top.take(list, "listen", default=[]), top.settings.get("protocols")
        line = protocols.line if protocols else 0
        silent = top.take(str, "on-timeout", "on_timeout", default="ssh")
        timeout = top.take(int, "timeout", default=5)
        transparent = top.take(bool, "transparent", default=False)
        entries = top.take(list, "protocols", default=[])
        self._takes_headers = any(map(_takes_header, listen))
        targets = list(self._targets(entries, line, transparent=transparent))
        self._draft.notes.append(
            "sslh never ends a connection that is idle; txmux does, after idle_timeout of [backend], 1h by default"
        )
        for listener in self._listeners(listen, top.line):
            if timeout != 5:
                listener.add("detect_timeout", f"{timeout}s")
            if targets:
                by_name = (section for name, section in targets if name == silent)
                listener.add("silent", next(by_name, targets[0][1]).name)
                listener.add("default", targets[-1][1].name)
        self._top_level(top)

    def _top_level(self, top: Group) -> None:
        top.need_look(
            "inetd", "inetd listens for it; txmux listens itself, also on sockets of systemd"
        )
        top.leave_out("foreground", "'twist' stays in the foreground", harmless=True)
        for name, reason in _NO_COUNTERPART.items():
            top.leave_out(name, reason)
        verbose = [name for name in top.settings if name.startswith("verbose")]
        lines = [top.settings.pop(name).line for name in verbose]
        if verbose:
            message = (
                f"{', '.join(verbose)}: no counterpart; 'twist --log-level=debug txmux' tells more"
            )
            self._draft.warn(lines[0], message)
        top.rest()

    def _listeners(self, entries: list[Any], line: int) -> list[Section]:
        found: dict[object, Section] = {}
        for number, entry in enumerate(entries):
            group = Group.read(self._draft, entry, line)
            if group is None:
                continue
            endpoint, at = self._endpoint(group), group.line
            keepalive = group.take(bool, "keepalive", default=True)
            proxy = group.take(bool, "proxyprotocol", "proxy_protocol", default=False)
            most = group.take(int, "max_connections", default=0)
            if endpoint:
                # A limit counts the connections of one endpoint, and of one section.
                kind = (keepalive, proxy, number if most else None)
                section = found.get(kind)
                if section is None:
                    section = found[kind] = self._draft.section("listen", "public", at)
                    if proxy:
                        section.add("accept_proxy_from", "0.0.0.0/0, ::/0, unix", at)
                    if most:
                        section.add("max_connections", str(most), at)
                    if not keepalive:
                        section.add("keepalive", "no", at)
                group.section = section
                section.add("endpoint", endpoint, at)
            group.rest()
        return list(found.values())

    def _endpoint(self, group: Group) -> str:
        host, unix = group.take(str, "host", default=""), group.take(bool, "is_unix", default=False)
        port = group.take(str, "port", default="")
        if group.take(bool, "is_udp", default=False):
            group.look(f"listen {host}:{port}: is left out; txmux has no UDP")
            return ""
        if unix:
            return f"unix:{host}"
        number, bare = self._port(port), host.removeprefix("[").removesuffix("]")
        if ":" in bare:
            return f"[{bare}]:{number}"
        if re.search("[A-Za-z]", bare):
            group.look(f"{bare!r} is a name; only its IPv4 address is listened on")
            return f"tcp:{number}:interface={bare}"
        return f"{bare}:{number}"

    def _port(self, text: str) -> str:
        number = None if text.isdecimal() else self._port_of(text)
        return text if number is None else str(number)

    def _targets(
        self, entries: list[Any], line: int, *, transparent: bool
    ) -> Iterator[tuple[str, Section]]:
        groups = [Group.read(self._draft, entry, line) for entry in entries]
        targets: list[tuple[str, Group]] = []
        for group in filter(None, groups):
            name = group.take(str, "name", default="")
            if group.take(bool, "is_udp", default=False) or name in _UDP_ONLY:
                group.look(f"protocol {name!r}: is left out; txmux has no UDP")
            else:
                targets.append((name, group))
        for number, (name, group) in enumerate(targets):
            group.line = min((s.line for s in group.settings.values()), default=group.line)
            section = group.section = self._draft.section("backend", name, group.line)
            self._backend(group, section, transparent=transparent)
            last = number == len(targets) - 1
            if name != "timeout" and not (last and name == "anyprot"):
                self._route(name, group, section)
            for option in ("log_level", "sni_hostnames", "alpn_protocols", "regex_patterns"):
                group.settings.pop(option, None)
            group.rest()
            yield name, section

    def _backend(self, group: Group, section: Section, *, transparent: bool) -> None:
        host, port = group.take(str, "host", default=""), group.take(str, "port", default="")
        at = group.line
        if group.take(bool, "is_unix", default=False):
            section.add("server", f"unix:{host}", at)
        else:
            bare = host.removeprefix("[").removesuffix("]")
            place = f"[{bare}]" if ":" in bare else bare
            section.add("server", f"{place}:{self._port(port)}", at)
        version = group.take(int, "proxyprotocol", "proxy_protocol")
        if version in {1, 2}:
            section.add("proxy_protocol", f"v{version}", group.line)
        elif version is None and self._takes_headers:
            message = (
                "proxyprotocol: the header that comes in goes on to this server, of version 1 or 2; txmux writes a new "
                "one: name its version in proxy_protocol"
            )
            section.add("proxy_protocol", "v2", group.line)
            group.look(message)
        if group.take(bool, "transparent", default=transparent):
            section.add("source", "client", group.line)
        most = group.take(int, "max_connections", default=0)
        if most:
            section.add("max_connections", str(most), group.line)
        # txmux does so anyway.
        group.take(bool, "resolve_on_forward")
        group.leave_out("keepalive", "keepalive of [listen] is for both sides", harmless=True)
        group.leave_out("fork", "one process serves all connections")
        group.leave_out("tfo_ok", "servers are connected without TCP Fast Open")
        group.leave_out("udp_timeout", "txmux has no UDP")
        group.need_look(
            "service",
            "hosts.allow and hosts.deny are not read; if they name it, write from or not_from in [route]",
        )
        group.leave_out("minlength", "routes wait for as many bytes as they need")

    def _route(self, name: str, group: Group, backend: Section) -> None:
        section = self._draft.section("route", name, group.line)
        at, group.section = group.line, section
        lines = list(self._lines(name, group))
        accepted = [line for line in lines if not self._refused(line, group)]
        for line in accepted or lines or [name]:
            section.add("match", line, group.line)
        if not accepted:
            section.dropped = True
        section.add("backend", backend.name, at)
        if group.take(int, "log_level", default=1) == 0:
            section.add("log", "no", group.line)
        group.section = backend

    def _refused(self, line: str, group: Group) -> str:
        why = refusal(line, self._matchers)
        if why:
            group.look(f"match = {line}: {why}")
        return why

    def _lines(self, name: str, group: Group) -> Iterator[str]:
        matcher = _MATCHERS.get(name, name)
        if name == "regex":
            for pattern in self._strings(group, "regex_patterns"):
                yield self._regex(pattern, group)
        elif matcher == "tls":
            names = _patterns(self._strings(group, "sni_hostnames"))
            protocols = _patterns(self._strings(group, "alpn_protocols"))
            for sni, alpn in product(names or [""], protocols or [""]):
                given = (("sni", sni), ("alpn", alpn))
                yield match_line(matcher, [option for option in given if option[1]])
        else:
            yield match_line(matcher, [])

    def _strings(self, group: Group, name: str) -> list[str]:
        return [value for value in group.take(list, name, default=[]) if isinstance(value, str)]

    def _regex(self, pattern: str, group: Group) -> str:
        text = regex_text(pattern)
        if not text:
            return "any"
        if is_searched(text):
            group.warn(
                f"regex {text!r} is looked for in the first 256 bytes, and routes below wait for them; "
                "begin it with ^ if it is at the beginning"
            )
        return match_line("regex", [("pattern", searched(text))])


def _takes_header(entry: object) -> bool:
    """Tell whether an endpoint expects PROXY headers."""
    names = ("proxyprotocol", "proxy_protocol")
    return isinstance(entry, dict) and any(n in entry and entry[n].value is True for n in names)


def _patterns(globs: list[str]) -> list[str]:
    """Make the values of an option: one of all plain patterns, and one of each with a set of characters."""
    plain = [glob for glob in globs if not set(glob) & set("[\\")]
    return [",".join(plain)] * bool(plain) + [glob_as_regex(g) for g in globs if g not in plain]
