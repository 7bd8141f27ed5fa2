"""Clients that no route took: a dump of their first bytes, and a rule that would have taken them."""

from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix
from typing import Any

from txmux.features.page.query import PageQuery
from txmux.telemetry.formatting import count, duration, plural

_ROW = 16
_SHARED, _FIRST, _ENOUGH = 2, 4, 8  # bytes
_PRINTABLE = range(0x20, 0x7F)


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
        "begins": begins(end),
        "listener": listener,
        "when": ago(now, end.get("ended")),
        "reason": str(end.get("reason", "")),
        "lines": dump(data),
        "explain": query.link(**{"explain": data.hex(), "on": listener, "from": address}),
    }


def begins(end: Mapping[str, Any]) -> tuple[str, bool]:
    return end["first"], "datagrams_in" in end


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
