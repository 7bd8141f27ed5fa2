"""An ``sslh.cfg``, of sslh 1.17 to 2.x, as rules."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import attrs

from txmux.detection.regex import PatternError, compile_pattern
from txmux.transport import bracketed
from txmux_convert.matching import (
    glob_as_regex,
    is_searched,
    match_line,
    refusal,
    regex_text,
    searched,
)
from txmux_convert.sslh.arguments import IS_DEFAULTS, merged, read_arguments, read_defaults
from txmux_convert.sslh.settings import Setting, SettingsGroup, read_libconfig
from txmux_convert.writer import ConvertError, Draft, DraftSection, read_named, shown

_MATCHERS = {"msrdp": "rdp", "anyprot": "any", "ssl": "tls"}
_COMMON = {
    "domain": 53, "ftp": 21, "git": 9418, "http": 80, "http-alt": 8080, "https": 443, "imap": 143,
    "imap2": 143, "imaps": 993, "isakmp": 500, "kerberos": 88, "ldap": 389, "ldaps": 636,
    "ms-wbt-server": 3389, "mysql": 3306, "ntp": 123, "openvpn": 1194, "pop3": 110, "pop3s": 995,
    "postgresql": 5432, "redis": 6379, "rsync": 873, "sip": 5060, "smtp": 25, "snmp": 161,
    "socks": 1080, "ssh": 22, "submission": 587, "submissions": 465, "syslog": 514, "telnet": 23,
    "tftp": 69, "tinc": 655, "www": 80, "xmpp-client": 5222, "xmpp-server": 5269,
}  # fmt: skip
"""Ports of services that are on shared ports, for machines without ``/etc/services``."""

_WITHIN = 256  # bytes in which a regex has to match, if nothing else is written
_UDP_ONLY = frozenset({"wireguard", "teamspeak"})
_UDP_TIMEOUT = 60
_ASIDE = {
    **dict.fromkeys(("version", "numeric", "chroot", "syslog_facility", "syslog-facility"), ""),
    "prefix": "",
    "pidfile": "--pidfile of 'txmux run'",
    "logfile": "access_log in [txmux]",
}

WITHOUT_EFFECT = {
    **dict.fromkeys(
        ("alpn_protocols", "probe", "regex_patterns", "sni_hostnames"),
        "is read where the protocol has it, and for others sslh does nothing with it",
    ),
    "foreground: true": "txmux stays there anyway",
    "keepalive: true": "keepalive of [listen] is on anyway",
    "resolve_on_forward": "txmux looks names up again anyway",
}
"""Settings, some with a value, that have no counterpart and no report, and why they need none."""


@attrs.frozen
class Machine:
    """Queries about this machine; see `txmux_convert.formats.convert`."""

    port_of: Callable[[str], int | None]
    is_guarded: Callable[[str], bool]


def convert_sslh(data: bytes, draft: Draft, machine: Machine) -> None:
    """Make rules of an ``sslh.cfg``, or of ``/etc/default/sslh``."""
    if IS_DEFAULTS.search(data):
        words, line, variables = read_defaults(data.decode("utf-8", "replace"), draft.path)
        if variables.get("RUN", "yes").lower() == "no":
            draft.warn(line, "RUN=no: the start script does not start sslh")
        try:
            convert_arguments(words, draft, machine, line)
        except ConvertError as error:
            raise ConvertError(f"{draft.path}:{line}: {error}") from None
        return
    settings = dict(read_libconfig(data, draft.path))
    _Sslh(draft, machine).convert(SettingsGroup(draft, settings, line=1))


def convert_arguments(words: Sequence[str], draft: Draft, machine: Machine, line: int = 1) -> None:
    """Make rules of the arguments of sslh, which stand in a line."""
    settings, unknown = read_arguments(words, line)
    if unknown:
        draft.flag(line, f"{' '.join(unknown)}: is not an option of sslh that is known here")
    file = settings.pop("config", None)
    if file:
        try:
            data = read_named(Path(file.value), draft)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConvertError(f"{file.value} cannot be read: {why}") from None
        said = read_libconfig(data, file.value)
        settings, both = merged(settings, _in_file(said, lambda n: draft.line_in(file.value, n)))
        for name in both:
            why = f"{file.value} sets it, too: sslh 2 connects to what the command line says, sslh 1 to what the file says"
            draft.flag(line, f"--{name}: {why}")
    _Sslh(draft, machine).convert(SettingsGroup(draft, settings, line=line))


def _in_file(value: Any, line: Callable[[int], int]) -> Any:
    """Number the lines of settings that come from a second file."""
    if isinstance(value, Setting):
        return Setting(_in_file(value.value, line), line(value.line))
    if isinstance(value, Mapping):
        return {name: _in_file(inside, line) for name, inside in value.items()}
    return (
        [_in_file(inside, line) for inside in value] if isinstance(value, (list, tuple)) else value
    )


class _Sslh:
    def __init__(self, draft: Draft, machine: Machine) -> None:
        self._draft = draft
        self._machine = machine
        self._takes_headers = False
        self._is_transparent = False

    def convert(self, top: SettingsGroup) -> None:
        listen, protocols = top.take(list, "listen", default=[]), top.settings.get("protocols")
        line = protocols.line if protocols else 0
        silent = top.take(str, "on-timeout", "on_timeout", default="ssh")
        silent = "tls" if silent == "ssl" else silent
        if "timeout" not in top.settings:
            self._draft.notes.append(
                "no timeout: sslh 1 waits 2 s for a client's first byte, sslh 2 5 s, txmux 3 s (detect_timeout)"
            )
        timeout = top.take(int, "timeout", default=None)
        transparent = top.take(bool, "transparent", default=False)
        entries = top.take(list, "protocols", default=[])
        self._takes_headers = any(map(_takes_header, listen))
        targets = list(self._targets(entries, line, transparent=transparent))
        self._draft.notes.append(
            "sslh never ends a connection that is idle; txmux does, after idle_timeout of [backend], 1h by default"
        )
        streams = [(name, section) for name, section, is_udp in targets if not is_udp]
        flows = [section for _, section, is_udp in targets if is_udp]
        most = top.take(int, "udp_max_connections", default=0)
        for listener, is_udp in self._listeners(listen, top.line):
            if is_udp:
                if most:
                    listener.add_default("max_flows", str(most))
                if flows:
                    listener.add("default", flows[-1].name)
                continue
            if timeout is not None:
                listener.add("detect_timeout", f"{timeout}s")
            if streams:
                by_name = (
                    section
                    for name, section in streams
                    if _MATCHERS.get(name, name) == silent or name == silent
                )
                listener.add("silent", next(by_name, streams[0][1]).name)
                listener.add("default", streams[-1][1].name)
        self._user(top)
        self._top_level(top)

    def _user(self, top: SettingsGroup) -> None:
        user = top.take(str, "user", default="")
        if user and self._is_transparent:
            why = "not together with source = client, which needs a privilege for as long as txmux runs"
            self._draft.warn(top.line, f"user: {user}: {why}; see 'Run as a service'")
        elif user:
            self._draft.section("txmux", line=top.line).add("user", user)

    def _top_level(self, top: SettingsGroup) -> None:
        top.flag_if_set(
            "inetd", "inetd listens for it; txmux listens itself, also on sockets of systemd"
        )
        top.set_aside("foreground", harmless=True)
        for name, hint in _ASIDE.items():
            top.set_aside(name, hint)
        verbose = [name for name in top.settings if name.startswith("verbose")]
        for line in [top.settings.pop(name).line for name in verbose][:1]:
            name = "verbose-*" if len(verbose) > 1 else verbose[0]
            self._draft.set_aside(line, name, "--log-level of 'txmux run'")
        top.rest()

    def _listeners(self, entries: list[Any], line: int) -> list[tuple[DraftSection, bool]]:
        """Write the listeners; return each with whether it is for UDP."""
        listeners: dict[object, tuple[DraftSection, bool]] = {}
        for number, entry in enumerate(entries):
            group = SettingsGroup.read(self._draft, entry, line)
            if group is None:
                continue
            is_udp = group.take(bool, "is_udp", default=False)
            endpoint, at = self._endpoint(group, is_udp=is_udp), group.line
            keepalive = group.take(bool, "keepalive", default=True)
            proxy = group.take(bool, "proxyprotocol", "proxy_protocol", default=False)
            most = group.take(int, "max_connections", default=0)
            # A limit counts the connections of one endpoint, and of one section.
            kind = (is_udp, keepalive or is_udp, proxy, number if most else None)
            if kind not in listeners:
                name = "public-udp" if is_udp else "public"
                section = self._draft.section("listen", name, at)
                listeners[kind] = section, is_udp
                if proxy:
                    section.add("accept_proxy_from", "0.0.0.0/0, ::/0, unix", at)
                if most:
                    section.add("max_flows" if is_udp else "max_connections", str(most), at)
                if not keepalive and not is_udp:
                    section.add("keepalive", "no", at)
            group.section = listeners[kind][0]
            group.section.add("endpoint", endpoint, at)
            group.rest()
        return list(listeners.values())

    def _endpoint(self, group: SettingsGroup, *, is_udp: bool) -> str:
        host, unix = group.take(str, "host", default=""), group.take(bool, "is_unix", default=False)
        port = group.take(str, "port", default="")
        if unix:
            return f"unix:{host}"
        if re.search("[<>]", host):
            raise ConvertError(
                shown(f"listen {host}:{port}: write an address of this machine in its place")
            )
        number, bare = self._port(port), host.removeprefix("[").removesuffix("]")
        if not number:
            raise ConvertError(
                shown(f"listen {host}:{port}: unknown service name '{port}'; write its number")
            )
        if is_udp:
            if re.search("[A-Za-z]", bare) and ":" not in bare:
                bare, name = {"localhost": "127.0.0.1"}.get(bare, "0.0.0.0"), bare  # noqa: S104 - until it is written
                group.flag(
                    f"'{name}' is a name; write the address of it that is listened on in place of {bare}"
                )
            return f"udp:{bracketed(bare)}:{number}"
        if re.search("[A-Za-z]", bare) and ":" not in bare:
            group.flag(f"'{bare}' is a name; only its IPv4 address is listened on")
            return f"tcp:{number}:interface={bare}"
        return f"{bracketed(bare)}:{number}"

    def _port(self, text: str) -> str:
        """Return the number of a port; nothing if it is a name that is not known."""
        if text.isdecimal() or not re.search("[A-Za-z]", text):
            return text
        number = self._machine.port_of(text) or _COMMON.get(text)
        return str(number) if number else ""

    def _targets(
        self, entries: list[Any], line: int, *, transparent: bool
    ) -> Iterator[tuple[str, DraftSection, bool]]:
        """Write the backends and their routes; return each with whether it is for UDP."""
        groups = [SettingsGroup.read(self._draft, entry, line) for entry in entries]
        targets: list[tuple[str, SettingsGroup, bool]] = []
        for group in filter(None, groups):
            name = group.take(str, "name", default="")
            is_udp = group.take(bool, "is_udp", default=False) or name in _UDP_ONLY
            targets.append((name, group, is_udp))
        last_ones = {is_udp: number for number, (*_, is_udp) in enumerate(targets)}
        for number, (name, group, is_udp) in enumerate(targets):
            group.line = min((s.line for s in group.settings.values()), default=group.line)
            section = group.section = self._draft.section("backend", name, group.line)
            self._backend(group, section, transparent=transparent, is_udp=is_udp)
            last = number == last_ones[is_udp]
            if name != "timeout" and not (last and name == "anyprot"):
                self._route(name, group, section)
            unlogged = group.settings.pop("log_level", None)
            if unlogged and unlogged.value == 0:
                group.warn(
                    "log_level: 0: clients that match no route are logged as [listen] says",
                    unlogged.line,
                )
            group.leave_out("minlength", "routes wait for as many bytes as they need")
            for option in WITHOUT_EFFECT:
                group.settings.pop(option, None)
            group.rest()
            yield name, section, is_udp

    def _backend(
        self, group: SettingsGroup, section: DraftSection, *, transparent: bool, is_udp: bool
    ) -> None:
        host, port = group.take(str, "host", default=""), group.take(str, "port", default="")
        at = group.line
        if group.take(bool, "is_unix", default=False):
            section.add("server", f"unix:{host}", at)
        else:
            bare = host.removeprefix("[").removesuffix("]")
            number = self._port(port)
            if number:
                section.add("server", f"{'udp:' * is_udp}{bracketed(bare)}:{number}", at)
            else:
                group.flag(f"{host}:{port}: unknown service name '{port}'; write its number")
        for name in ("proxyprotocol", "proxy_protocol"):
            setting = group.settings.get(name)
            if setting is not None and setting.value is True:
                del group.settings[name]
                message = f"{name}: true: names no version; write proxy_protocol = v1 or v2"
                group.flag(message, setting.line)
        version = group.take(int, "proxyprotocol", "proxy_protocol")
        if version in {1, 2}:
            section.add("proxy_protocol", f"v{version}", group.line)
        elif version is None and self._takes_headers and not is_udp:
            message = (
                "proxyprotocol: the header that comes in is passed to this server, of version 1 or 2; txmux writes a new "
                "one: name its version in proxy_protocol"
            )
            section.add("proxy_protocol", "v2", group.line)
            group.flag(message)
        if group.take(bool, "transparent", default=transparent):
            section.add("source", "client", group.line)
            self._is_transparent = True
        most = group.take(int, "max_connections", default=0)
        if most:
            section.add("max_connections", str(most), group.line)
        group.leave_out("keepalive", "keepalive of [listen] is for both sides", harmless=True)
        group.set_aside("fork")
        group.set_aside("tfo_ok")
        if is_udp:
            timeout = group.take(int, "udp_timeout", default=_UDP_TIMEOUT)
            section.add("idle_timeout", f"{timeout}s", group.line)
        group.leave_out(
            "udp_timeout", "it works only over UDP, and this protocol uses TCP", harmless=True
        )
        self._guard(group)

    def _guard(self, group: SettingsGroup) -> None:
        """Report ``service``, by which hosts.allow and hosts.deny may keep clients out."""
        service = group.settings.get("service")
        if service is None or self._machine.is_guarded(str(service.value)):
            group.flag_if_set(
                "service",
                "hosts.allow and hosts.deny are not read; if they name it, write from or not_from in [route]",
            )
        else:
            group.leave_out("service", "hosts.allow and hosts.deny of this machine do not name it")

    def _route(self, name: str, group: SettingsGroup, backend: DraftSection) -> None:
        section = self._draft.section("route", name, group.line)
        at, group.section = group.line, section
        lines = list(self._lines(name, group))
        accepted = [line for line in lines if not self._refused(line, group)]
        section.add_each("match", accepted or lines or [name], group.line)
        if not accepted:
            section.dropped = True
        section.add("backend", backend.name, at)
        if group.take(int, "log_level", default=1) == 0:
            section.add("log", "no", group.line)
        group.section = backend

    def _refused(self, line: str, group: SettingsGroup) -> str:
        why = refusal(line, self._draft.matchers)
        if why:
            group.flag(f"match = {line}: {why}")
        return why

    def _lines(self, name: str, group: SettingsGroup) -> Iterator[str]:
        matcher = _MATCHERS.get(name, name)
        # Of sslh 1.12 to 1.16: "builtin", or expressions in its place.
        probe = group.settings.pop("probe", None)
        if probe and not isinstance(probe.value, str):
            group.settings["regex_patterns"] = probe
        if name == "regex" or (probe and not isinstance(probe.value, str)):
            least = group.take(int, "minlength", default=0)
            for pattern in self._strings(group, "regex_patterns"):
                yield self._regex(pattern, least, group)
        elif matcher == "tls":
            names = _patterns(self._strings(group, "sni_hostnames"))
            protocols = _patterns(self._strings(group, "alpn_protocols"))
            for sni, alpn in product(names or [""], protocols or [""]):
                given = (("sni", sni), ("alpn", alpn))
                yield match_line(matcher, [option for option in given if option[1]])
        else:
            yield match_line(matcher, [])

    def _strings(self, group: SettingsGroup, name: str) -> list[str]:
        return [value for value in group.take(list, name, default=[]) if isinstance(value, str)]

    def _regex(self, pattern: str, least: int, group: SettingsGroup) -> str:
        text = regex_text(pattern)
        if not text:
            return (
                "any" if least < 2 else match_line("regex", _pattern(f"(?s:.{{{least}}})", least))
            )
        if is_searched(text):
            group.warn(
                f"regex {text!r} is looked for in the first 256 bytes, and routes below wait for them; "
                "begin it with ^ if it is at the beginning"
            )
        text, length = searched(text), _length(searched(text))
        if length and length < least:
            return match_line("regex", _pattern(f"{text}(?s:.{{{least - length}}})", least))
        if least and not length:
            group.warn(
                f"minlength: has no counterpart for regex {text!r}, which may be of any length"
            )
        return match_line("regex", [("pattern", text)])


def _pattern(text: str, length: int) -> list[tuple[str, str]]:
    return [("pattern", text), *[("within", str(length))] * (length > _WITHIN)]


def _length(pattern: str) -> int:
    """Return the length of all matches of an expression; 0 if it varies."""
    try:
        re.compile(f"(?<={pattern})")
        return compile_pattern(pattern.encode("ascii")).longest or 0
    except (re.error, PatternError):
        return 0


def _takes_header(entry: object) -> bool:
    """Return whether an endpoint expects PROXY headers."""
    names = ("proxyprotocol", "proxy_protocol")
    return isinstance(entry, dict) and any(n in entry and entry[n].value is True for n in names)


def _patterns(globs: list[str]) -> list[str]:
    """Return the values of an option: one for all plain patterns, and one for each with a set of characters."""
    plain = [glob for glob in globs if not set(glob) & set("[\\")]
    return [",".join(plain)] * bool(plain) + [glob_as_regex(g) for g in globs if g not in plain]
