"""What lines of an ``haproxy.cfg`` take from elsewhere in it: folders of certificates, and name servers."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.convert.haproxy.lines import Config, Line

_FILES = {"ca-file": "ca-base", "crl-file": "ca-base", "crt": "crt-base", "crt-list": "crt-base"}
"""What is followed by the path of a file, and the setting of ``global`` with its folder."""

_HOLDERS = frozenset({"bind", "default-server", "server", "server-template"})


def with_references(config: Config) -> Config:
    """Write paths and name servers into the lines that refer to them."""
    folders = {
        line.words[0]: line.words[1]
        for line in config.settings
        if line.words[0] in _FILES.values() and len(line.words) > 1
    }
    servers = {
        section.words[1]: ",".join(_name_servers(lines))
        for section, lines in config.others.items()
        if section.words[0] == "resolvers" and len(section.words) > 1
    }
    usual = _usual(config)
    proxies = tuple(
        attrs.evolve(
            proxy, lines=tuple(_filled(line, folders, servers, usual) for line in proxy.lines)
        )
        for proxy in config.proxies
    )
    return attrs.evolve(config, proxies=proxies)


_USUAL = {
    "ssl-default-bind-options": ("bind", "ssl-min-ver"),
    "ssl-server-verify": ("server", "verify"),
}
"""Settings of ``global`` for lines with ``ssl`` that do not say otherwise."""


def _usual(config: Config) -> dict[str, tuple[str, str]]:
    """Return what lines with ``ssl`` mean if they do not say it: by their first word, a flag and its value."""
    found: dict[str, tuple[str, str]] = {}
    for line in config.settings:
        kind, flag = _USUAL.get(line.words[0], ("", ""))
        words = (flag, *line.words[1:]) if flag == "verify" else line.words
        if flag in words[:-1]:
            found[kind] = (flag, words[words.index(flag) + 1])
    return found


def _filled(
    line: Line,
    folders: Mapping[str, str],
    servers: Mapping[str, str],
    usual: Mapping[str, tuple[str, str]],
) -> Line:
    if line.words[0] not in _HOLDERS:
        return line
    words = list(line.words)
    flag, setting = usual.get(line.words[0], ("", ""))
    if flag and "ssl" in words and flag not in words:
        words += [flag, setting]
    for place, (name, value) in enumerate(zip(line.words, line.words[1:], strict=False), start=1):
        folder = folders.get(_FILES.get(name, ""))
        if folder and not value.startswith("@"):
            words[place] = str(PurePath(folder) / value)
        elif name == "resolvers":
            words[place] = servers.get(value, "")
    return attrs.evolve(line, words=tuple(words))


def _name_servers(lines: tuple[Line, ...]) -> list[str]:
    found = [line.words[2] for line in lines if line.begins("nameserver") and len(line.words) > 2]
    return [address.removeprefix("udp@") for address in found]
