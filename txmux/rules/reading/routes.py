"""A ``[route]`` section as a whole, and how routes stand under each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.rules.model import Clients, Refusal, Route, TlsEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from txmux.rules.model import Section
    from txmux.rules.problems import Problem

__all__ = ["circles", "make_route", "without_tls"]

_TLS_FIELDS = {"alpn": "alpn", "tls_client_ca": "client_ca", "tls_minimum": "minimum"}


def make_route(name: str, section: Section, found: Mapping[str, Any]) -> Route:
    """Make the route of a section.

    Args:
        name: Its name.
        section: What stands in the file.
        found: The values that could be read, by the keys' fields. Where something required is missing, a stand-in
            lets the rest be checked.
    """
    fields = {"alternatives": (), **found}
    tls = {field: fields.pop(key) for key, field in _TLS_FIELDS.items() if key in fields}
    files = fields.pop("terminate_tls", None)
    if files:
        fields["terminate_tls"] = TlsEnd(files, **tls)
    clients = Clients(fields.pop("allowed", None), fields.pop("excluded", None))
    fields.setdefault("outcome", None if "terminate_tls" in section.entries else Refusal.CLOSE)
    return Route(name, clients=clients, section=section, **fields)


def without_tls(section: Section) -> Iterator[Problem]:
    """Find keys that would wrongly make their reader believe that TLS is ended.

    Args:
        section: That of a route.
    """
    for key in _TLS_FIELDS:
        if key in section.entries and "terminate_tls" not in section.entries:
            message = "does nothing without 'terminate_tls'; add that, or remove this"
            yield section.problem(message, key)


def circles(routes: Iterable[Route], sections: Mapping[str, Section]) -> Iterator[Problem]:
    """Find routes that stand under themselves, at once or over others.

    Args:
        routes: All routes.
        sections: Where they stand, by their names.

    Yields:
        One problem for each circle, at the route that comes first.
    """
    under = {r.name: r.under for r in routes if "terminate_tls" in sections[r.name].entries}
    done: set[str] = set()
    for name in under:
        way = _way_back(name, under) if name not in done else []
        if way:
            done.update(way)
            told = "stands under itself"
            if len(way) > 1:
                told = f"stands under itself: {' -> '.join((*way, name))}"
            yield sections[name].problem(
                f"{told}; put it under a listener, or leave 'under' out", "under"
            )


def _way_back(name: str, under: Mapping[str, Iterable[str]]) -> list[str]:
    """Find a way from a route over what it is under to itself again; nothing if there is none."""
    ways = [[name]]
    seen: set[str] = set()
    for way in ways:
        for above in under[way[-1]]:
            if above == name:
                return way
            if above in under and above not in seen:
                seen.add(above)
                ways.append([*way, above])
    return []
