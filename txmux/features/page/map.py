"""The map of listeners, routes and servers, laid out for a drawing."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from txmux.classes import define, frozen
from txmux.telemetry.formatting import byte_rate
from txmux.telemetry.presentation import Health

WIDTH = 1000
ROW = 26
_GAP = 10
_TOP = 28
_LISTENERS = (8, 190)  # left and right edge of each column
_ROUTES = (330, 590)
_BACKENDS = (730, 992)
MOST_ROUTES = 24
_MANY_SERVERS = 24
_MOST_SERVERS = 6  # of one backend
TROUBLE: Sequence[Health] = ("down", "partly", "drain")  # the worst first
_WELL = {"up", "unchecked", "checking", "partly"}
_URGENCY = {
    health: at for at, health in enumerate((*TROUBLE, "unchecked", "checking", "up", "idle"))
}
_CLOSED: Mapping[Health, str] = {"drain": "paused", "down": "cannot accept"}  # of a listener
_LETTER = 7.3  # width of a letter, in the units of the drawing

CHART_WIDTH = 300
CHART_HEIGHT = 60
_CHART_SECONDS = 600


def flow_text(active: int, rate: str) -> str:
    return " · ".join(filter(None, [f"{active} active" if active else "", rate]))


@frozen
class RouteFlow:
    """The traffic of a line: connections now, and bytes a second, both ways."""

    active: int = 0
    traffic: float = 0

    @property
    def weight(self) -> float:
        return self.traffic + self.active

    @property
    def text(self) -> str:
        return flow_text(self.active, byte_rate(self.traffic) if self.traffic >= 1 else "")


@frozen
class MapRoute:
    """A route, as the map needs it.

    Attributes:
        under: Listeners, and routes that end TLS, that it belongs to; none: every listener.
        backend: Its target: the name of a backend, a server's short form, ``close`` or ``reset``; empty if it ends TLS and other
            routes follow.
        by_listener: The traffic by listener; one that is missing here has all of it.
        left_out: If it stands for routes that are not shown, how many these are; `backend` is then the worst of their backends.
    """

    name: str
    under: Sequence[str] = ()
    backend: str = ""
    active: int = 0
    traffic: float = 0
    matches: int = 0
    by_listener: Mapping[str, RouteFlow] = attrs.field(factory=dict)
    left_out: int = 0

    @property
    def flow(self) -> RouteFlow:
        return RouteFlow(self.active, self.traffic)


@frozen
class MapServer:
    """A server: its address, its state, and a few words about it."""

    name: str
    health: Health
    detail: str = ""


@frozen
class Box:
    """A rectangle with text.

    A click filters by its `name`; pointers and screen readers get the `title`; a server is `of` a backend, and a route leads `to` one.
    """

    kind: str
    name: str
    label: str
    detail: str
    health: Health
    x: float
    y: float
    width: float
    title: str
    of: str = ""
    to: str = ""

    @property
    def described(self) -> str:
        """What screen readers say: the drawn text is in it, since voice control names the box by that."""
        drawn = f"{self.label} {self.detail}".rstrip()
        is_whole = drawn in self.title.replace(": ", " ")
        return (
            f"{self.title}, {self.health}" if is_whole else f"{drawn}: {self.title}, {self.health}"
        )

    @property
    def middle(self) -> float:
        return self.y + ROW / 2 - 2


@frozen
class MapLine:
    """A line between two boxes: a path of SVG, its width, and its colour."""

    path: str
    width: float
    health: Health


@frozen
class Map:
    """The drawing; `folded` is the number of routes that are not shown by themselves."""

    boxes: Sequence[Box]
    lines: Sequence[MapLine]
    height: float
    folded: int

    @property
    def columns(self) -> list[tuple[str, list[Box]]]:
        """The boxes for a list in place of the drawing, where that would be too wide."""
        ends = {"listeners": _LISTENERS, "routes": _ROUTES, "backends and servers": _BACKENDS}
        return [
            (title, [box for box in self.boxes if left <= box.x < right])
            for title, (left, right) in ends.items()
        ]


def draw(
    listeners: Mapping[str, Health],
    routes: Sequence[MapRoute],
    backends: Mapping[str, Sequence[MapServer]],
    *,
    flows: Mapping[str, RouteFlow] | None = None,
    everything: bool = False,
    chosen: str = "",
) -> Map:
    """Lay out the map.

    Where there are many routes, only the chosen one, the busiest and those to a backend with a server that is not up are shown; the others
    are folded into rows that say how many they are. What a route names beside the backends has a box of its own.
    `flows` are those of the listeners, if not all routes are given.
    """
    healths = {name: health_of(servers) for name, servers in backends.items()}
    shown = _shown(routes, healths, chosen, everything=everything)
    drawing = _Drawing(max((route.flow.weight for route in routes), default=0))
    left = drawing.listeners(listeners, flows or listener_flows(routes), len(shown))
    named = [route.backend for route in shown if isinstance(route, MapRoute) and route.backend]
    right = drawing.backends(dict.fromkeys(named), backends, healths)
    middle = drawing.routes(shown, healths)
    by_name = {box.name: box for box in middle.values()}
    for route in routes:
        box = middle.get(id(route))
        if box is None:
            continue
        for source in _sources(route, left, by_name):
            flow = route.by_listener.get(source.name) if source.kind == "listener" else None
            drawing.join(source, box, flow or route.flow, box.health)
        if route.backend in right:
            drawing.join(box, right[route.backend], route.flow, box.health)
    folded = sum(_length(group) for group in shown if isinstance(group, list))
    return Map(drawing.boxes, drawing.lines, drawing.height, folded)


def health_of(servers: Iterable[MapServer]) -> Health:
    states = [server.health for server in servers]
    if not states:
        return "idle"
    up = sum(state in _WELL for state in states)
    if up == len(states):
        kinds: Sequence[Health] = ("partly", "unchecked", "checking")
        return next((health for health in kinds if health in states), "up")
    if up:
        return "partly"
    return "drain" if {*states} <= {"drain", "idle"} else "down"


def how_many(states: Sequence[Health]) -> str:
    if not states:
        return ""
    if not {"unchecked", "checking"} & {*states}:
        return f"{states.count('up')}/{len(states)} up"
    out = sum(state in TROUBLE for state in states)
    well = "checking" if "checking" in states else "not checked"
    return f"{out}/{len(states)} out" if out else well


def _shown(
    routes: Sequence[MapRoute], healths: Mapping[str, Health], chosen: str, *, everything: bool
) -> list[MapRoute | list[MapRoute]]:
    """Return the routes to show, in their order, and between them those that are left out."""
    if everything or len(routes) <= MOST_ROUTES:
        return [[route] if route.left_out else route for route in routes]
    busiest = sorted(routes, key=lambda route: (route.flow.weight, route.matches), reverse=True)
    urgent = [
        route.name
        for health in TROUBLE
        for route in busiest
        if healths.get(route.backend) == health
    ]
    names = {chosen, *urgent[: MOST_ROUTES - 4]}
    names |= {route.name for route in busiest[: max(MOST_ROUTES - len(names), 4)]}
    names |= {name for route in routes if route.name in names for name in route.under}
    names.discard("")
    shown: list[MapRoute | list[MapRoute]] = []
    for route in routes:
        if route.name in names:
            shown.append(route)
        elif shown and isinstance(shown[-1], list):
            shown[-1].append(route)
        else:
            shown.append([route])
    # One route by itself takes only as much room as its number.
    return [
        row[0] if isinstance(row, list) and _length(row) == 1 and row[0].name else row
        for row in shown
    ]


def _length(folded: Iterable[MapRoute]) -> int:
    return sum(route.left_out or 1 for route in folded)


def _worst(routes: Iterable[MapRoute], healths: Mapping[str, Health]) -> Health:
    present = {healths.get(route.backend) for route in routes}
    return next((health for health in TROUBLE if health in present), "idle")


def _sources(route: MapRoute, listeners: Mapping[str, Box], routes: Mapping[str, Box]) -> list[Box]:
    if not route.under:
        # It is under those alone whose transport it has.
        own = route.by_listener or listeners
        return [box for name, box in listeners.items() if name in own]
    both = {**routes, **listeners}
    return [both[name] for name in route.under if name in both]


@define
class _Drawing:
    most: float
    boxes: list[Box] = attrs.field(factory=list)
    lines: list[MapLine] = attrs.field(factory=list)
    height: float = _TOP

    def _box(  # noqa: PLR0913 - a box has them
        self,
        kind: str,
        name: str,
        y: float,
        column: tuple[float, float],
        *,
        detail: str = "",
        health: Health = "up",
        inset: float = 0,
        title: str = "",
        of: str = "",
        to: str = "",
    ) -> Box:
        x, end = column[0] + inset, column[1]
        room = int((end - x - 20) / _LETTER)
        whole = f"{kind} {name}: {detail}" if detail else f"{kind} {name}"
        if len(name) + len(detail) + 2 > room:
            detail = detail.rpartition(" · ")[2]
        room -= len(detail) + 2 if detail else 0
        label = name if len(name) <= room else name[: max(room - 1, 1)] + "…"
        box = Box(kind, name, label, detail, health, x, y, end - x, title or whole, of, to)
        self.boxes.append(box)
        self.height = max(self.height, y + ROW + _GAP)
        return box

    def listeners(
        self, listeners: Mapping[str, Health], flows: Mapping[str, RouteFlow], rows: int
    ) -> dict[str, Box]:
        """Put the listeners into the first column, spread over the height of the routes."""
        step = max(ROW + _GAP, min(rows, MOST_ROUTES) * (ROW + 4) / max(len(listeners), 1))
        first = _TOP + (step - ROW - _GAP) / 2
        tops = (first + step * number for number in range(len(listeners)))
        return {
            name: self._box(
                "listener",
                name,
                y,
                _LISTENERS,
                health=health,
                detail=_CLOSED.get(health) or flows.get(name, RouteFlow()).text,
            )
            for (name, health), y in zip(listeners.items(), tops, strict=True)
        }

    def routes(
        self, shown: Iterable[MapRoute | list[MapRoute]], healths: Mapping[str, Health]
    ) -> dict[int, Box]:
        """Put them into the second column; by their identity, since several listeners may have one of a name: `short_forms`."""
        boxes: dict[int, Box] = {}
        names: set[str] = set()
        y: float = _TOP
        for route in shown:
            if isinstance(route, list):
                named, health = f"{_length(route)} more", _worst(route, healths)
                self._box("folded", named, y, _ROUTES, health=health, title=f"{named}: show all")
            else:
                inner = not names.isdisjoint(route.under)
                names.add(route.name)
                boxes[id(route)] = self._box(
                    "route",
                    route.name,
                    y,
                    _ROUTES,
                    detail=route.flow.text,
                    health=healths.get(route.backend, "up" if route.matches else "idle"),
                    inset=20 if inner else 0,
                    to=route.backend,
                )
            y += ROW + 4
        return boxes

    def backends(
        self,
        names: Iterable[str],
        backends: Mapping[str, Sequence[MapServer]],
        healths: Mapping[str, Health],
    ) -> dict[str, Box]:
        """Put the backends into the third column, with their servers below them."""
        boxes: dict[str, Box] = {}
        y: float = _TOP
        listed = [*names]
        is_long = sum(len(backends.get(name, ())) for name in listed) > _MANY_SERVERS
        for name in listed:
            servers = backends.get(name, ())
            health, detail = healths.get(name, "idle"), how_many([its.health for its in servers])
            boxes[name] = self._box("backend", name, y, _BACKENDS, detail=detail, health=health)
            y += ROW
            if len(servers) > 1 or (servers and servers[0].name != name):
                y = self._servers(name, servers, y, is_long=is_long)
            y += _GAP
        return boxes

    def _servers(
        self, backend: str, servers: Sequence[MapServer], y: float, *, is_long: bool
    ) -> float:
        """Put the servers of a backend below it; in a long drawing, only those with trouble."""
        listed = sorted(servers, key=lambda server: _URGENCY[server.health])
        if is_long:
            listed = [server for server in listed if server.health in TROUBLE]
        for server in listed[:_MOST_SERVERS]:
            its, health = (server.name, y, _BACKENDS), server.health
            self._box("server", *its, detail=server.detail, health=health, inset=16, of=backend)
            y += ROW
        if len(listed) > _MOST_SERVERS:
            named, health = f"{len(listed) - _MOST_SERVERS} more", listed[_MOST_SERVERS].health
            health = health if health in TROUBLE else "idle"
            self._box("folded", named, y, _BACKENDS, health=health, inset=16, of=backend)
            y += ROW
        return y

    def join(self, source: Box, target: Box, flow: RouteFlow, health: Health) -> None:
        x1, x2 = source.x + source.width, target.x
        if x2 <= x1:  # a route below the one that ends TLS for it
            x1 = source.x + 10
            path = f"M{x1:.0f},{source.y + ROW - 4:.0f} V{target.middle:.0f} H{x2:.0f}"
        else:
            bend = (x2 - x1) / 2
            path = (
                f"M{x1:.0f},{source.middle:.0f} C{x1 + bend:.0f},{source.middle:.0f} "
                f"{x2 - bend:.0f},{target.middle:.0f} {x2:.0f},{target.middle:.0f}"
            )
        is_well = health in _WELL
        colour: Health = "idle" if is_well and not flow.weight else health
        share = flow.weight / self.most if self.most else 0
        width = round(1.2 + 7.8 * math.sqrt(share), 1) if share else 1
        self.lines.append(MapLine(path, width, colour))


def listener_flows(routes: Iterable[MapRoute]) -> dict[str, RouteFlow]:
    flows: dict[str, RouteFlow] = {}
    for route in routes:
        for name, flow in route.by_listener.items():
            before = flows.get(name, RouteFlow())
            flows[name] = RouteFlow(before.active + flow.active, before.traffic + flow.traffic)
    return flows


def map_route(route: Mapping[str, Any], traffic: Mapping[str, float]) -> MapRoute:
    return MapRoute(
        route["name"],
        route.get("under") or (),
        route.get("backend") or "",
        route.get("active") or 0,
        sum(traffic.values()),
        route.get("matches") or 0,
        {
            counts["listener"]: RouteFlow(
                counts.get("active") or 0, traffic.get(counts["listener"], 0)
            )
            for counts in route.get("listeners") or ()
        },
        route.get("left_out") or 0,
    )


@frozen
class Chart:
    """One series over the last minutes; `points` are the line, for SVG's `polyline`, and `times` are in seconds since 1970."""

    name: str
    title: str
    now: str
    most: str
    points: str
    times: Sequence[float]
    values: Sequence[float]


def chart(
    name: str,
    title: str,
    times: Sequence[float],
    values: Sequence[float],
    write: Callable[[float], str],
) -> Chart:
    """Draw a series; the right end is the last value."""
    most = max(values, default=0)
    last = times[-1] if times else 0
    points = " ".join(
        f"{CHART_WIDTH * (1 - (last - time) / _CHART_SECONDS):.1f},{CHART_HEIGHT - 1 - (CHART_HEIGHT - 2) * value / (most or 1):.1f}"
        for time, value in zip(times, values, strict=True)
        if last - time <= _CHART_SECONDS
    )
    return Chart(
        name, title, write(values[-1] if values else 0), write(most), points, times, values
    )
