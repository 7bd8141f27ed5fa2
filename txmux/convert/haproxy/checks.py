"""The health checks of an ``haproxy.cfg`` (its configuration manual, chapters 4 and 5.2) as ``check``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from txmux.convert.haproxy.lines import duration, seconds
from txmux.convert.haproxy.probes import WEAKER, WeakerError, question
from txmux.convert.haproxy.servertls import header
from txmux.convert.matching import option

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from txmux.convert.haproxy.lines import Proxy
    from txmux.convert.haproxy.servers import Server
    from txmux.convert.writer import Draft, Section

_INTER = "2s"
_LOST = {
    "addr": "it is at another address",
    "agent-check": "the state that an agent tells",
    "check-alpn": "it speaks a protocol by ALPN",
    "check-proto": "it speaks a protocol of HAProxy",
    "check-via-socks4": "it goes by a SOCKS proxy",
    "track": "it is that of another server",
}
_OF_PROTOCOLS = frozenset({"spop-check"})
"""Whether the server speaks a protocol, and no more."""

_SAME = ("check", "port", "check-ssl", "check-sni", "check-send-proxy")
_LONGEST = {"inter": _INTER, "rise": "2", "fall": "3"}
_COUNT = re.compile("[0-9]{1,4}")


def add_check(
    proxy: Proxy, section: Section, servers: Sequence[Server], draft: Draft, used: set[int]
) -> None:
    """Write ``check`` for the servers that are in a section; see `fill_backend`."""
    kinds = [line for line in proxy.all("option") if line.words[1:2] and _is_check(line.words[1])]
    steps = [*proxy.all("http-check"), *proxy.all("tcp-check")]
    used.update(line.number for line in (*kinds, *steps, *proxy.all("timeout", "check")))
    live = [server for server in servers if not server.is_down]
    checked = [server for server in live if "check" in server.parameters]
    for server in live:
        if "agent-check" in server.parameters and "check" not in server.parameters:
            draft.look(server.line.number, f"{server.line}: no counterpart of agent-check", section)
    if not checked:
        return
    first = checked[0]
    kind = kinds[-1] if kinds else None
    try:
        words = question(proxy, kind)
    except WeakerError as why:
        words = ["tcp"]
        line = kind or first.line
        message = f"{line}: check = tcp, which only connects: no counterpart of {why}"
        # Own steps may tell a primary from a replica, which a connection does not.
        only_protocol = kind is not None and kind.words[1] in _OF_PROTOCOLS
        (draft.warn if only_protocol else draft.look)(line.number, message, section)
    if kind and kind.words[1] in WEAKER:
        message = f"{kind}: check = {' '.join(words)}, which {WEAKER[kind.words[1]]}"
        draft.warn(kind.number, message, section)
    why_lost = _lost(live, only_connects=words == ["tcp"])
    if why_lost:
        message = f"{first.line}: its check is left out: {why_lost}"
        draft.look(first.line.number, message, section)
        return
    if len(checked) < len(live):
        message = "check: HAProxy checks only some of these servers, and txmux all of them"
        draft.warn(first.line.number, message, section)
    said = {word.partition("=")[0] for word in words}
    words += [word for word in _place(first) if word.partition("=")[0] not in said]
    _schedule(proxy, words, checked, draft, section)
    section.add("check", " ".join(words), first.line.number)


def _is_check(name: str) -> bool:
    return name.endswith(("chk", "-check"))


def _lost(live: Sequence[Server], *, only_connects: bool) -> str:
    """Return why the servers cannot be asked as HAProxy asks them."""
    for server in live:
        if server.is_anywhere:
            return "the server's address is another one for each client"
        for name, why in _LOST.items():
            if name in server.parameters:
                return f"{name}: {why}"
        given = server.parameters
        if "check-send-proxy" in given and ("port" in given or not header(given)):
            return "check-send-proxy: its header is another one than that of clients"
    for name in _SAME:
        found = {server.line.words[1]: server.parameters.get(name) for server in live}
        if len({*found.values()}) > 1 and not (
            name == "check" and only_connects and not _elsewhere(live)
        ):
            each = ", ".join(
                f"{server} has {'none' if value is None else value or 'it'}"
                for server, value in found.items()
            )
            return f"servers of a [backend] have the same check, and these differ in {name}: {each}"
    return ""


def _elsewhere(live: Iterable[Server]) -> bool:
    return any({"port", "check-ssl"} & server.parameters.keys() for server in live)


def _place(server: Server) -> list[str]:
    given = server.parameters
    words = [f"port={given['port']}"] if "port" in given else []
    if "check-ssl" in given and ("ssl" not in given or "port" in given):
        words.append("tls=yes")
        if "check-sni" in given and "ssl" not in given:
            words.append(option("sni", given["check-sni"]))
    return words


def _schedule(
    proxy: Proxy, words: list[str], checked: Sequence[Server], draft: Draft, section: Section
) -> None:
    chosen: dict[str, str] = {}
    for name, usual in _LONGEST.items():
        values = {server.parameters.get(name, usual) for server in checked}
        chosen[name] = max(values, key=_seconds if name == "inter" else _count)
        if len(values) > 1:
            message = f"{name}: servers of a [backend] have the same; {chosen[name]} is the longest of them"
            draft.warn(checked[0].line.number, message, section)
    inter = _seconds(chosen["inter"])
    connect, read = proxy.value("timeout", "connect"), proxy.value("timeout", "check")
    patience = inter
    if read and len(read.words) > 2:
        patience = min(
            inter, _seconds(connect.words[2]) if connect and len(connect.words) > 2 else inter
        )
        if words[0] != "tcp":
            patience += _seconds(read.words[2])
    words += [f"interval={duration(chosen['inter'])}", f"timeout={_text(patience)}"]
    for name in ("rise", "fall"):
        if chosen[name] != _LONGEST[name]:
            words.append(f"{name}={chosen[name]}")


def _seconds(text: str) -> float:
    return seconds(duration(text))


def _count(text: str) -> int:
    return int(text) if _COUNT.fullmatch(text) else 0


def _text(number: float) -> str:
    return duration(f"{max(1, round(number * 1000))}")
