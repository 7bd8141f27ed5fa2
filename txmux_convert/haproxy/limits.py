"""Admission by an ``haproxy.cfg``: allowed networks, and limits of sources that it counts in a ``stick-table``.

See its configuration manual, sections 4.2 and 7.3.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from txmux.rules.model.networks import IPNetwork
from txmux_convert.haproxy.lines import Proxy, duration, seconds
from txmux_convert.routes import texts_of
from txmux_convert.terms import (
    ALWAYS,
    NEVER,
    Condition,
    InexpressibleError,
    Networks,
    Term,
    conjunction,
    negated,
)
from txmux_convert.values import without
from txmux_convert.writer import ConfigLine

_TEST = re.compile(r"(?:src|sc[0-2]?)_(?P<what>conn_cur|conn_rate)(?:\((?P<args>[^()]*)\))?")
_STORED = re.compile(r"conn_rate\((?P<period>[^()]*)\)")
_LAYERS = ("connection", "session", "content")
_UNITS = (("s", 1), ("m", 60), ("h", 3600))


def read_limits(line: ConfigLine, proxy: Proxy, tables: Mapping[str, Proxy]) -> dict[str, str]:
    """Read a rule that rejects by number or rate of connections as keys of ``[listen]``; other rules give none."""
    words = list(line.words[3:])
    if words[:1] != ["if"]:
        return {}
    named: dict[str, list[Sequence[str]]] = {}
    for acl in proxy.all("acl"):
        if len(acl.words) > 2:
            named.setdefault(acl.words[1], []).append(acl.words[2:])
    keys: dict[str, str] = {}
    for test in _alternatives(words[1:], named):
        key, value = _limit(test, line, proxy, tables)
        if not value:
            return {}
        keys.setdefault(key, value)
    return keys


def _alternatives(
    words: Sequence[str], named: Mapping[str, list[Sequence[str]]]
) -> Iterable[Sequence[str]]:
    group: list[str] = []
    for word in [*words, "or"]:
        if word not in {"or", "||"}:
            group.append(word)
            continue
        if group[:1] == ["{"] and group[-1] == "}" and group.count("{") == 1:
            yield group[1:-1]
        elif len(group) == 1 and group[0] in named:
            yield from named[group[0]]
        else:
            yield ()
        group = []


def _limit(
    test: Sequence[str], line: ConfigLine, proxy: Proxy, tables: Mapping[str, Proxy]
) -> tuple[str, str]:
    match = _TEST.fullmatch(test[0]) if len(test) == 3 else None
    if match is None or test[1] not in {"ge", "gt"} or not test[2].isdecimal():
        return "", ""
    tracks = [track for track in tracking(proxy) if "if" not in track.words]
    # Tracking before the condition counts the client itself.
    counted = any(_order(track) < _order(line) for track in tracks)
    most = int(test[2]) - (test[1] == "ge") + (not counted)
    if most < 1 or not tracks:
        return "", ""
    if match["what"] == "conn_cur":
        return "max_connections_per_source", str(most)
    args = [arg.strip() for arg in (match["args"] or "").split(",")]
    elsewhere = [track.words[-1] for track in tracks if track.words[-2] == "table"]
    names = [name for name in (*args, *elsewhere) if name in tables]
    period = _period(tables[names[0]] if names else proxy)
    return "connection_rate_per_source", _rate(most, period) if period else ""


def tracking(proxy: Proxy) -> list[ConfigLine]:
    """Return the rules that count client addresses."""
    return [
        line
        for line in proxy.all("tcp-request")
        if len(line.words) > 3
        and line.value in _LAYERS
        and line.words[2].startswith("track-sc")
        and line.words[3] == "src"
    ]


def _order(line: ConfigLine) -> tuple[int, int]:
    return _LAYERS.index(line.value), line.number


def _period(proxy: Proxy) -> float:
    line = proxy.value("stick-table")
    match = _STORED.search(str(line)) if line and line.words[2:3] in {("ip",), ("ipv6",)} else None
    return seconds(duration(match["period"])) if match else 0


def _rate(most: int, period: float) -> str:
    for unit, length in _UNITS:
        number = most * length / period
        if number >= 1 and (number.is_integer() or unit == "h"):
            return f"{int(number)}/{unit} burst={most}"
    return ""


_MOST_NETWORKS = 256
_NOBODY = "255.255.255.255/32"
"""No client has this address; clients of a UNIX socket are outside of every network."""

_ALL = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def admitted(rules: Sequence[tuple[bool, Condition]]) -> Condition:
    """Return the clients that rules admit (accept or reject, and whom); clients that no rule names are admitted."""
    clients = ALWAYS
    for accepts, condition in reversed(rules):
        if accepts:
            clients = ALWAYS if ALWAYS[0] in (*condition, *clients) else (*condition, *clients)
        else:
            clients = conjunction(negated(condition), clients)
    return clients


def as_lists(condition: Condition) -> tuple[list[str], list[str]]:
    """Write networks as those of ``allow`` and ``deny``."""
    if condition == NEVER:
        return [_NOBODY], []
    if ALWAYS[0] in condition:
        return [], []
    if len(condition) == 1:
        return texts_of(condition[0].allowed or ()), texts_of(condition[0].excluded)
    networks = [network for term in condition for network in _networks_of(term)]
    if len(networks) > _MOST_NETWORKS:
        raise InexpressibleError("would take too many networks")
    return texts_of(networks), []


def _networks_of(term: Term) -> list[IPNetwork]:
    """Return the networks of a term without its excluded ones."""
    left = [_plain(network) for network in (_ALL if term.allowed is None else term.allowed)]
    for hole in map(_plain, term.excluded):
        left = [part for network in left for part in without(network, [hole])]
        if len(left) > _MOST_NETWORKS:
            raise InexpressibleError("would take too many networks")
    return left


def _plain(network: Networks) -> IPNetwork:
    if isinstance(network, str):
        raise InexpressibleError(f"takes a part of the networks of {network}")
    return network
