"""The section ``global`` of an ``haproxy.cfg``: the process, and the defaults that it sets for other sections."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath

import attrs

from txmux_convert.haproxy.lines import Config, Proxy, duration
from txmux_convert.writer import ConfigLine, Draft

_KEYS = {
    "gid": "group", "grace": "grace", "group": "group", "hard-stop-after": "drain_timeout",
    "maxconn": "max_connections", "nbproc": "workers", "nbthread": "workers", "uid": "user",
    "user": "user",
}  # fmt: skip
_TIMES = frozenset({"grace", "hard-stop-after"})
LIMIT_CLOSES = "HAProxy lets further clients wait, and txmux closes them"
_DIFFERENT = {
    "maxconn": LIMIT_CLOSES,
    **dict.fromkeys(
        ("nbproc", "nbthread"), "limits of backends and of servers hold for each worker"
    ),
}
_OF_BINDS = "ssl-default-bind-options"
_ELSEWHERE = frozenset({"ca-base", "crt-base", "ssl-server-verify"})


def add_process(
    settings: Sequence[ConfigLine], draft: Draft, no_counterpart: Callable[[ConfigLine], None]
) -> None:
    keys: dict[str, tuple[str, ConfigLine]] = {}
    for line in map(_without_minimum, settings):
        name, value = line.name, line.value
        if name in _KEYS and value:
            text = duration(value) if name in _TIMES else value
            if (_KEYS[name], text) != ("workers", "1"):
                keys[_KEYS[name]] = (text, line)
        elif name == "log" and value == "stdout":
            keys["access_log"] = (value, line)
        elif name not in _ELSEWHERE and line.words != (_OF_BINDS,):
            no_counterpart(line)
    if keys:
        section = draft.section("txmux", line=next(iter(keys.values()))[1].number)
        for key, (text, line) in keys.items():
            section.add(key, text, line.number)
            why = _DIFFERENT.get(line.name)
            if why:
                section.warn(line, why)


def _without_minimum(line: ConfigLine) -> ConfigLine:
    """Drop the oldest version of TLS: `with_references` adds it to each ``bind``."""
    if line.name != _OF_BINDS or "ssl-min-ver" not in line.words:
        return line
    place = line.words.index("ssl-min-ver")
    return attrs.evolve(line, words=(*line.words[:place], *line.words[place + 2 :]))


_FILES = {
    "ca-file": "ca-base",
    "ca-verify-file": "ca-base",
    "crl-file": "ca-base",
    "crt": "crt-base",
    "crt-list": "crt-base",
}
"""Parameters with the path of a file, and the setting of ``global`` with its folder."""

_HOLDERS = frozenset({"bind", "default-server", "server", "server-template"})


def with_references(config: Config) -> Config:
    """Write paths and name servers into the lines that refer to them."""
    folders = {
        line.name: line.value
        for line in config.settings
        if line.name in _FILES.values() and line.value
    }
    servers = {
        section.value: ",".join(_name_servers(lines))
        for section, lines in config.others.items()
        if section.name == "resolvers"
    }
    usual = _usual(config)

    def filled(proxy: Proxy) -> Proxy:
        lines = (_filled(line, folders, servers, usual) for line in proxy.lines)
        return attrs.evolve(proxy, lines=tuple(lines))

    return attrs.evolve(config, proxies=tuple(map(filled, config.proxies)))


_USUAL = {
    "ssl-default-bind-options": ("bind", "ssl-min-ver"),
    "ssl-server-verify": ("server", "verify"),
}
"""Settings of ``global``: the defaults of lines with ``ssl``."""


def _usual(config: Config) -> dict[str, tuple[str, str]]:
    """Return the defaults of lines with ``ssl``: by their first word, a flag and its value."""
    defaults: dict[str, tuple[str, str]] = {}
    for line in config.settings:
        kind, flag = _USUAL.get(line.name, ("", ""))
        words = (flag, *line.words[1:]) if flag == "verify" else line.words
        if flag in words[:-1]:
            defaults[kind] = (flag, words[words.index(flag) + 1])
    return defaults


def _filled(
    line: ConfigLine,
    folders: Mapping[str, str],
    servers: Mapping[str, str],
    usual: Mapping[str, tuple[str, str]],
) -> ConfigLine:
    if line.name not in _HOLDERS:
        return line
    words = list(line.words)
    flag, setting = usual.get(line.name, ("", ""))
    if flag and "ssl" in words and flag not in words:
        words += [flag, setting]
    for place, (name, value) in enumerate(zip(line.words, line.words[1:], strict=False), start=1):
        folder = folders.get(_FILES.get(name, ""))
        if folder and not value.startswith("@"):
            words[place] = str(PurePath(folder) / value)
        elif name == "resolvers":
            words[place] = servers.get(value, "")
    return attrs.evolve(line, words=tuple(words))


def _name_servers(lines: tuple[ConfigLine, ...]) -> list[str]:
    addresses = [
        line.words[2] for line in lines if line.begins("nameserver") and len(line.words) > 2
    ]
    return [address.removeprefix("udp@") for address in addresses]
