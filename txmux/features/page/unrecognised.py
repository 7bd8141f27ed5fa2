"""Clients that no route took: a dump of their first bytes, and a rule that would have taken them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from os.path import commonprefix
from typing import Any

from txmux.detection.registry import datagram_predicate, installed_matchers, transports_of
from txmux.errors import OptionError
from txmux.features.page.query import PageQuery
from txmux.interfaces import Datagrams, Peeked, Predicate, Transport, Verdict
from txmux.telemetry.formatting import count, duration, plural

_ROW = 16
_SHARED, _FIRST, _ENOUGH = 2, 4, 8  # bytes
_PRINTABLE = range(0x20, 0x7F)

_IDENTIFY_NOTHING = frozenset({"any", "random"})  # matchers that identify no protocol
_EVERY_BYTE = 256
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


def identical_clients(ends: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Group clients that no route took, by their listener and first bytes, in the order of the first of each group."""
    groups: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for end in ends:
        if "first" in end:
            key = (end.get("listener"), end["first"], "datagrams_in" in end)
            groups.setdefault(key, []).append(end)
    return [*groups.values()]


def similar_ends(ends: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group other ends by where and why, in the order of the last of each group, with the number of each."""
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    for end in ends:
        if "first" not in end:
            key = tuple(end.get(name) for name in ("listener", "route", "server", "reason"))
            groups.setdefault(key, {**end, "count": 0})["count"] += 1
    return [*groups.values()]


def unrecognised_client(
    alike: Sequence[Mapping[str, Any]], now: float, query: PageQuery
) -> dict[str, Any]:
    """Describe identical clients that no route took, by the last one."""
    end, clients = alike[0], [str(row.get("client", "")) for row in alike]
    client, listener = clients[0], str(end.get("listener", ""))
    data = bytes.fromhex(end["first"])
    address, addresses = host_of(client), len({*map(host_of, clients)})
    several = plural(len(alike), "time") if len(alike) > 1 else ""
    return {
        "count": f"{several}, from {count(addresses)} addresses" if addresses > 1 else several,
        "client": client,
        "clients": clients,
        "data": data,
        "over": Transport.UDP if "datagrams_in" in end else Transport.TCP,
        "listener": listener,
        "when": ago(now, end.get("ended")),
        "reason": str(end.get("reason", "")),
        "lines": dump(data),
        "explain": query.link(**{"explain": data.hex(), "on": listener, "from": address}),
    }


def host_of(client: str) -> str:
    return client.rpartition(":")[0].strip("[]")


def dump(data: bytes) -> list[str]:
    return [
        f"{data[start : start + _ROW].hex(' '):{3 * _ROW - 1}}  {_text(data[start : start + _ROW])}"
        for start in range(0, len(data), _ROW)
    ]


def _text(data: bytes) -> str:
    return "".join(chr(byte) if byte in _PRINTABLE else "." for byte in data)


def line_for(data: bytes, others: Iterable[bytes] = ()) -> str:
    """Return a line of ``match =`` for clients that begin like this one: with what some other sends, too, or else with its first bytes."""
    both = (commonprefix([data, other]) for other in others)  # noqa: RUF071 - these are no paths
    shared = data[: max(map(len, both), default=0)]
    is_telling = len(shared) >= _SHARED and any(shared)  # zeros are the length of anything
    head = shared[:_ENOUGH] if is_telling else data[:_FIRST]
    if head and all(byte in _PRINTABLE and chr(byte) not in "'\"\\$#; " for byte in head):
        return f"match = payload text={head.decode('ascii')}"
    return f"match = payload hex={head.hex()}" if head else ""


def ago(now: float, time: float | None) -> str:
    return f"{duration(now - time)} ago" if time else ""


@lru_cache(maxsize=256)
def matcher_of(data: bytes, over: Transport = Transport.TCP) -> str:
    """Return a line of ``match =`` for the most specific matcher that takes these bytes; empty if none does."""
    if not data:
        return ""
    peeked = Peeked(data) if over is Transport.TCP else Datagrams((data,))
    candidates = [
        (_first_bytes(predicate), name)
        for name, predicate in _predicates(over).items()
        if _matches(predicate, peeked)
    ]
    if not candidates:
        return ""
    name = min(candidates)[1]
    return f"match = {name}{_name_asked_for(name, _predicates(over)[name], peeked)}"


def _name_asked_for(matcher: str, predicate: Predicate, peeked: Any) -> str:
    """Return the option for the name that the client asks for, if that is a plain host name."""
    options = {option.name for option in installed_matchers()[matcher].options}
    try:
        facts = predicate.learnt(peeked) if hasattr(predicate, "learnt") else {}
    except Exception:  # noqa: BLE001 - as below
        return ""
    names = ((name, facts[name]) for name in ("sni", "host") if name in options and name in facts)
    return next((f" {name}={value}" for name, value in names if _HOST_NAME.fullmatch(value)), "")


def _matches(predicate: Predicate, peeked: Peeked) -> bool:
    try:
        return predicate(peeked) is Verdict.MATCH
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return False


def _first_bytes(predicate: Predicate) -> int:
    first = getattr(predicate, "first_bytes", None)
    return _EVERY_BYTE if first is None else len(first)


@lru_cache(maxsize=2)
def _predicates(over: Transport) -> Mapping[str, Predicate]:
    """Make the predicates of all matchers that need no option."""
    predicates = {}
    for name, matcher in installed_matchers().items():
        if name not in _IDENTIFY_NOTHING and over in transports_of(matcher):
            try:
                predicate: Predicate | None = matcher.predicate({})
                if over is Transport.UDP and predicate is not None:
                    predicate = datagram_predicate(matcher, {}, predicate)
            except OptionError:
                continue
            if predicate is not None:
                predicates[name] = predicate
    return predicates
