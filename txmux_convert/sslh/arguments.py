"""The command line of sslh, of 1.9 to 2.x, and Debian's ``/etc/default/sslh``, as the settings that a file would have."""

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn

from typing_extensions import override

from txmux_convert.sslh.settings import Setting
from txmux_convert.writer import ConvertError

_PROTOCOLS = {
    "--adb": "adb", "--anyprot": "anyprot", "--http": "http", "--msrdp": "msrdp",
    "--openvpn": "openvpn", "--socks5": "socks5", "--ssh": "ssh", "--ssl": "tls",
    "--syslog": "syslog", "--teamspeak": "teamspeak", "--tinc": "tinc", "--tls": "tls",
    "--wireguard": "wireguard", "--xmpp": "xmpp",
    # Of 1.9 and before.
    "-l": "tls", "-o": "openvpn", "-s": "ssh",
}  # fmt: skip
_VALUES = {
    ("-C", "--chroot"): "chroot",
    ("-F", "--config"): "config",
    ("--logfile",): "logfile",
    ("--on-timeout",): "on-timeout",
    ("-P", "--pidfile"): "pidfile",
    ("--syslog-facility", "--syslog_facility"): "syslog_facility",
    ("-t", "--timeout"): "timeout",
    ("--udp-max-connections", "--udp_max_connections"): "udp_max_connections",
    ("-u", "--user"): "user",
}
_FLAGS = {
    ("-f", "--foreground"): "foreground",
    ("-i", "--inetd"): "inetd",
    ("-n", "--numeric"): "numeric",
    ("--transparent",): "transparent",
    ("-V", "--version"): "version",
}
_NUMBERS = frozenset({"timeout", "udp_max_connections"})
_ADDRESS = re.compile(r"(?P<host>.*):(?P<port>[\w-]+)")

Settings = dict[str, Setting]


class _SslhArgumentParser(argparse.ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        raise ConvertError(f"these are no arguments of sslh: {message}")


class _AppendProtocol(argparse.Action):
    """Adds a protocol to all of them, whose order counts."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.protocols.append((self.metavar, values))


def read_arguments(words: Sequence[str], line: int) -> tuple[Settings, list[str]]:
    """Read a command line.

    Returns:
        What a file would say for it, in which ``config`` is the path of a file to be read before; and the words that mean nothing.
    """
    parser = _SslhArgumentParser(add_help=False)
    parser.set_defaults(protocols=[])
    parser.add_argument("-p", "--listen", action="append")
    for option, protocol in _PROTOCOLS.items():
        parser.add_argument(option, action=_AppendProtocol, metavar=protocol)
    for options, name in _VALUES.items():
        parser.add_argument(*options, dest=name)
    for options, name in _FLAGS.items():
        parser.add_argument(*options, dest=name, action="store_true", default=None)
    parser.add_argument("--background", dest="foreground", action="store_false", default=None)
    parser.add_argument("-v", "--verbose", action="count")
    arguments, unknown = parser.parse_known_args(list(words))
    settings: Settings = {}
    for name in [*_VALUES.values(), *_FLAGS.values(), "verbose"]:
        value = getattr(arguments, name)
        if name in _NUMBERS and value is not None and value.isdecimal():
            value = int(value)
        if value is not None:
            settings[name] = Setting(value, line)
    if arguments.listen:
        settings["listen"] = Setting([_address(text, line) for text in arguments.listen], line)
    if arguments.protocols:
        entries = [
            {"name": Setting(n, line), **_address(text, line)} for n, text in arguments.protocols
        ]
        settings["protocols"] = Setting(entries, line)
    return settings, unknown


def merged(settings: Settings, file: Settings) -> tuple[Settings, list[str]]:
    """Add listen addresses to a file's, replace its protocols; return which of these both have."""
    combined = {**file, **settings}
    both: list[str] = []
    for name in ("listen", "protocols"):
        if name in settings and name in file:
            entries = _joined(file[name].value, settings[name].value, both)
            combined[name] = Setting(entries, file[name].line)
    return combined, both


def _joined(before: Any, more: list[Settings], both: list[str]) -> list[Any]:
    entries = list(before) if isinstance(before, (list, tuple)) else []
    names = [
        entry["name"].value if isinstance(entry, dict) and "name" in entry else ""
        for entry in entries
    ]
    for entry in more:
        name = entry["name"].value if "name" in entry else None
        if name in names:
            place = names.index(name)
            entries[place] = {**entries[place], **entry}
            both.append(name)
        else:
            entries.append(entry)
    return entries


def _address(text: str, line: int) -> Settings:
    match = _ADDRESS.fullmatch(text)
    host, port = (match["host"], match["port"]) if match else (text, "")
    return {"host": Setting(host, line), "port": Setting(port, line)}


_OPTIONS = "DAEMON_OPTS"
_ASSIGNED = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
IS_DEFAULTS = re.compile(rb"^[ \t]*(export[ \t]+)?DAEMON_OPTS=", re.MULTILINE)
"""Recognises such a file."""


def read_defaults(text: str, path: str) -> tuple[list[str], int, dict[str, str]]:
    """Read the arguments of sslh; returns them, their line, and all variables."""
    variables: dict[str, str] = {}
    options_line = 0
    lines = text.replace("\\\n", " \x00").split("\n")
    number = 1
    for line in lines:
        here, number = number, number + 1 + line.count("\x00")
        try:
            words = shlex.split(line.replace("\x00", ""), comments=True)
        except ValueError as error:
            raise ConvertError(f"{path}:{here}: {error}") from None
        for word in words:
            assigned = _ASSIGNED.fullmatch(word)
            if assigned:
                value = _VARIABLE.sub(
                    lambda f: variables.get(f[1] or f[2], f[0]), assigned["value"]
                )
                variables[assigned["name"]] = value
                options_line = here if assigned["name"] == _OPTIONS else options_line
    options = variables.get(_OPTIONS, "")
    unknown = re.search(r"[$`]", options)
    if not options_line or unknown:
        why = f"{_OPTIONS} depends on what a shell does" if unknown else f"there is no {_OPTIONS}"
        raise ConvertError(f"{path}:{options_line}: {why}; write 'txmux convert sslh -- ARGUMENTS'")
    try:
        return shlex.split(options), options_line, variables
    except ValueError as error:
        raise ConvertError(f"{path}:{options_line}: {error}") from None
