from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.page.map import ROW, WIDTH, MapRoute, MapServer, RouteFlow, draw, health_of

_SERVERS = {
    "web": [MapServer("10.0.0.1:80", "up"), MapServer("10.0.0.2:80", "down")],
    "db": [MapServer("10.0.0.3:5432", "down")],
}


_ROUTES = st.builds(
    MapRoute, st.text(max_size=80), st.lists(st.sampled_from(["public", "x", "nowhere"]), max_size=2),
    st.sampled_from(["web", "db", "127.0.0.1:22", "close", ""]), st.integers(0, 9000), st.floats(0, 1e12),
)  # fmt: skip


class MapTests(SynchronousTestCase):
    def test_each_has_a_box_and_its_lines(self) -> None:
        drawn = draw(
            {"public": "up", "office": "up"},
            [MapRoute("site", backend="web"), MapRoute("sql", ("office",), "db")],
            _SERVERS,
        )
        self.assertEqual([(box.kind, box.name) for box in drawn.boxes], [
            ("listener", "public"), ("listener", "office"), ("backend", "web"),
            ("server", "10.0.0.2:80"), ("server", "10.0.0.1:80"), ("backend", "db"),
            ("server", "10.0.0.3:5432"), ("route", "site"), ("route", "sql"),
        ])  # fmt: skip
        self.assertEqual(len(drawn.lines), 2 + 1 + 1 + 1)
        route = MapRoute("dns", backend="x", by_listener={"names": RouteFlow()})
        drawn = draw({"web": "up", "names": "up"}, [route], {})
        names = next(box for box in drawn.boxes if box.name == "names")
        first, _ = drawn.lines
        self.assertTrue(first.path.startswith(f"M{names.x + names.width:.0f},{names.middle:.0f} "))
        routes = [MapRoute("tls"), MapRoute("site", ("tls",), "web")]
        drawn = draw({"public": "up"}, routes, _SERVERS)
        boxes = {box.name: box for box in drawn.boxes}
        self.assertGreater(boxes["site"].x, boxes["tls"].x)
        self.assertEqual(len(drawn.lines), 3)

    def test_lines_show_how_busy_and_healthy_routes_are(self) -> None:
        routes = [MapRoute(*its, active=1) for its in (("site", (), "web"), ("sql", (), "db"))]
        drawn = draw({"public": "up"}, routes, _SERVERS)
        healths = {box.name: box.health for box in drawn.boxes if box.kind == "route"}
        self.assertEqual(healths, {"site": "partly", "sql": "down"})
        routes = [MapRoute(f"r{n}", backend="x", active=n) for n in (4, 1, 0)]
        drawn = draw({"public": "up"}, routes, {"x": [MapServer("s", "up")]})
        found = [(line.width, line.health) for line in drawn.lines]
        wanted = [(9.0, "up"), (5.1, "up"), (1, "idle")]
        self.assertEqual(found, [one for one in wanted for _ in range(2)])
        for states, expected in (
            ("", "idle"), ("up", "up"), ("up down", "partly"), ("down drain", "down"), ("drain", "drain"),
            ("unchecked", "unchecked"), ("up unchecked", "unchecked"), ("down unchecked", "partly"), ("up checking", "checking"),
        ):  # fmt: skip
            servers = [MapServer(state, state) for state in states.split()]  # type: ignore[arg-type]
            self.assertEqual(health_of(servers), expected, states)
        for states, detail in (
            ("unchecked unchecked", "not checked"), ("checking checking", "checking"),
            ("unchecked down", "1/2 out"), ("up down", "1/2 up"),
        ):  # fmt: skip
            servers = [MapServer(str(at), health) for at, health in enumerate(states.split())]  # type: ignore[arg-type]
            drawn = draw({"public": "up"}, [MapRoute("r", backend="x")], {"x": servers})
            self.assertEqual([box.detail for box in drawn.boxes if box.kind == "backend"], [detail])

    def test_busy_ones_and_those_with_trouble_are_not_folded(self) -> None:
        routes = [MapRoute(f"r{n}", backend="x", active=n % 30 == 7) for n in range(300)]
        routes[150:152] = MapRoute("sql", backend="db"), MapRoute("site", backend="web")
        everything = draw({"public": "up"}, routes, _SERVERS, everything=True)
        self.assertEqual(sum(box.kind == "route" for box in everything.boxes), 300)
        drawn = draw({"public": "up"}, routes, _SERVERS)
        named = [box.name for box in drawn.boxes if box.kind == "route"]
        self.assertEqual(len(named) + drawn.folded, 300)
        self.assertLess(len(named), 30)
        found = {("sql", "down"), ("site", "partly")}
        self.assertLessEqual(found, {(box.name, box.health) for box in drawn.boxes})
        self.assertLessEqual({f"r{n}" for n in range(7, 300, 30)}, set(named))
        self.assertEqual(named, [route.name for route in routes if route.name in named])
        routes = [MapRoute(f"r{n}", backend="x", active=1) for n in range(300)]
        routes[150] = MapRoute("site", backend="web")
        drawn = draw({"public": "up"}, routes, _SERVERS)
        self.assertIn(("site", "partly"), [(box.name, box.health) for box in drawn.boxes])
        routes = [MapRoute(f"r{n}", backend="db", active=n < 20) for n in range(300)]
        routes[200] = MapRoute("chosen", backend="x")
        drawn = draw({"public": "up"}, routes, _SERVERS, chosen="chosen")
        self.assertEqual({box.health for box in drawn.boxes if box.kind == "folded"}, {"down"})
        self.assertIn("chosen", [box.name for box in drawn.boxes])
        six = [(str(n), "down") for n in range(6)]
        for count, down, shown in (
            (30, 8, [*six, ("2 more", "down")]), (25, 6, six), (24, 6, [*six, ("18 more", "idle")]),
        ):  # fmt: skip
            servers = [MapServer(str(n), "down" if n < down else "up") for n in range(count)]
            drawn = draw({"public": "up"}, [MapRoute("r", backend="web")], {"web": servers})
            self.assertEqual([(box.name, box.health) for box in drawn.boxes if box.of], shown)

    @given(st.lists(_ROUTES, max_size=60, unique_by=lambda route: route.name), st.booleans())
    def test_boxes_are_inside_and_apart(self, routes: list[MapRoute], everything: bool) -> None:  # noqa: FBT001
        drawn = draw({"public": "up", "x": "drain"}, routes, _SERVERS, everything=everything)
        taken: set[tuple[float, float]] = set()
        for box in drawn.boxes:
            self.assertTrue(box.x >= 0 and box.x + box.width <= WIDTH and box.y >= 0)
            self.assertLessEqual(box.y + ROW, drawn.height)
            column = box.x // 300
            self.assertNotIn((column, box.y), taken)
            taken.add((column, box.y))
            self.assertLessEqual(len(box.label) * 6, box.width)
        for line in drawn.lines:
            self.assertTrue(1 <= line.width <= 10)
