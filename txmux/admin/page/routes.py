"""Routes, as the map needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.admin.page.map import Flow, MapRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def map_routes(
    routes: Iterable[Mapping[str, Any]], traffic: Mapping[str, Mapping[str, float]]
) -> list[MapRoute]:
    """Return the routes for the map, in their order.

    Args:
        routes: ``/api/routes``.
        traffic: Bytes a second of each route, by listener.
    """
    return [_route(route, traffic.get(route["name"], {})) for route in routes]


def _route(route: Mapping[str, Any], traffic: Mapping[str, float]) -> MapRoute:
    return MapRoute(
        route["name"],
        route.get("under") or (),
        route.get("backend") or "",
        route.get("active") or 0,
        sum(traffic.values()),
        route.get("matches") or 0,
        {
            one["listener"]: Flow(one.get("active") or 0, traffic.get(one["listener"], 0))
            for one in route.get("listeners") or ()
        },
    )
