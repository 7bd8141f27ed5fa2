from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.features.top.snapshot import CONNECTIONS, SERVER, SNAPSHOT
from txmux.features.top.keys import pressed
from txmux.features.top.state import (
    ChangeRequest,
    ExplainRequest,
    Snapshot,
    TopRequest,
    TopState,
    lines_of,
)
from txmux.features.top.view import screen

_KEYS = [*"1234sSr/exbdmuwWpqyYnh?jk =a", "tab", "backtab", "left", "right", "up", "down", "home"]
_KEYS += ["end", "page-up", "page-down", "enter", "escape", "backspace", "clear", "redraw"]


def _all(
    state: TopState, *keys: str, snapshot: Snapshot = SNAPSHOT
) -> tuple[TopState, list[TopRequest]]:
    sent = []
    for key in keys:
        state, wish = pressed(state, snapshot, key)
        sent += [wish] if wish is not None else []
    return state, sent


class KeysTests(SynchronousTestCase):
    def order(self, state: TopState) -> list[str]:
        return [line.key[-1] for line in lines_of("connections", state, SNAPSHOT)]

    def test_keys_change_what_is_shown(self) -> None:
        for keys, pane in ((["tab"], "routes"), (["backtab"], "ends"), (["3", "right"], "ends")):
            self.assertEqual(_all(TopState(), *keys)[0].pane, pane)
        self.assertTrue(_all(TopState(), "p")[0].is_paused)
        self.assertFalse(_all(TopState(), "p", " ")[0].is_paused)
        self.assertEqual(_all(TopState(), "h", "down", "up")[0].mode, "help")
        self.assertEqual(_all(TopState(), "?", "q")[0], TopState())
        self.assertTrue(_all(TopState(), "q")[0].should_exit)
        self.assertEqual(self.order(TopState()), ["1", "2", "3"])
        by_age = _all(TopState(), *"ssssss")[0]
        self.assertEqual(self.order(by_age), ["1", "3", "2"])
        self.assertEqual(self.order(_all(by_age, "r")[0]), ["2", "3", "1"])
        self.assertEqual(self.order(_all(TopState(), *"ssssr")[0])[-1], "2")
        self.assertEqual(_all(TopState(), "s", "S")[0].sorts, {})
        self.assertEqual(self.order(_all(TopState(), "S")[0]), ["1", "2", "3"])
        state, sent = _all(TopState(), "down", "down", "up", *"ssssss", "e")
        self.assertEqual(sent, [ExplainRequest("5f3a-2")])
        gone = attrs.evolve(SNAPSHOT, connections=[CONNECTIONS[0], CONNECTIONS[2]])
        self.assertEqual(_all(state, "e", snapshot=gone)[1], [ExplainRequest("5f3a-3")])
        self.assertEqual(_all(TopState(), "end", "e")[1], [ExplainRequest("5f3a-3")])
        self.assertEqual(_all(TopState(), "end", "home", "enter")[1], [ExplainRequest("5f3a-1")])

    def test_changes_of_a_backend_after_yes_unless_clients_are_served_by_them(self) -> None:
        """The server that is down is the first row."""
        server, backends = "servers/127.0.0.1%3A8081", SNAPSHOT.backends
        held = [{**one, "hold": {"until": None}} for one in backends]
        is_held = attrs.evolve(SNAPSHOT, backends=held)
        for key, snapshot, path, body, what in (
            ("d", SNAPSHOT, server, {"state": "drain"}, "drain: backend web, 127.0.0.1:8081"),
            ("m", SNAPSHOT, server, {"state": "maintenance"}, "maintenance: backend web, 127.0.0.1:8081"),
            ("u", SNAPSHOT, server, {"state": "ready"}, "ready: backend web, 127.0.0.1:8081"),
            ("w", SNAPSHOT, "hold", {}, "hold clients of backend web"),
            ("w", is_held, "release", {}, "release clients of backend web"),
        ):  # fmt: skip
            state, sent = _all(TopState(), "3", key, snapshot=snapshot)
            if not what.startswith(("ready", "release")):
                self.assertEqual((state.mode, sent), ("question", []))
                self.assertEqual(_all(state, "n")[0].result.message, "nothing was changed")
                sent = _all(state, "y")[1]
            self.assertEqual(sent, [ChangeRequest(f"/api/backends/web/{path}", body, what)])
        last = ", its last server that gets new connections? y/n"
        others: tuple[tuple[list[dict[str, Any]], str], ...] = (
            ([], last),
            ([{**SERVER, "server": "b", "state": "drain"}], last),
            ([{**SERVER, "server": "b"}], "? y/n"),
        )
        for more, end in others:
            servers = [{**SERVER, "server": "a"}, *more]
            backends = [{"name": "other", "servers": [SERVER]}, {"name": "web", "servers": servers}]
            snapshot = attrs.evolve(SNAPSHOT, backends=backends)
            for key, what in (("d", "drain"), ("m", "maintenance")):
                state = TopState(chosen={"servers": ("web/a", 0)})
                state = _all(state, "3", key, snapshot=snapshot)[0]
                shown = [line.plain for line in screen(state, snapshot, 120, 24)]
                self.assertEqual(shown[-1], f"{what}: backend web, a{end}")

    def test_weight_and_filter_are_typed(self) -> None:
        path = "/api/backends/web/servers/127.0.0.1%3A8081"
        state, sent = _all(TopState(), *"3Wx")
        self.assertEqual((state.mode, sent), ("value", []))
        wrong, sent = _all(state, "enter")
        self.assertEqual((wrong.mode, wrong.result.is_bad, sent), ("value", True, []))
        for keys, weight, word in (
            (["5"], 5, "5"), ([], None, "of the rules"), (["0"], None, "of the rules"),
        ):  # fmt: skip
            what = f"weight {word}: backend web, 127.0.0.1:8081"
            asked = _all(state, "backspace", *keys, "enter")[1]
            self.assertEqual(asked, [ChangeRequest(path, {"weight": weight}, what)])
        wrong, sent = _all(state, "backspace", *"65536", "enter")
        self.assertEqual((wrong.result.message[:21], sent), ("'65536' is no weight;", []))
        self.assertEqual(_all(state, "escape", "enter")[1], [])
        state = _all(TopState(), "/", *"route=sitex", "backspace", *" older=5m", "enter")[0]
        self.assertEqual(state.filters, {"route": "site", "older": "5m"})
        wrong = _all(state, "/", *" colour=b", "enter")[0]
        self.assertEqual((wrong.mode, wrong.filters), ("filter", state.filters))
        self.assertIn("'colour=b' is not a filter", wrong.result.message)
        self.assertEqual(_all(wrong, "escape")[0].filters, state.filters)
        self.assertEqual(_all(wrong, "clear", "enter")[0].filters, {})

    def test_ban_or_end_of_the_chosen_connection_after_yes_only(self) -> None:
        for keys, address, more in (
            ("b", "192.0.2.1", {}),
            ("4b", "192.0.2.4", {}),
            ("b1h", "192.0.2.1", {"seconds": 3600}),
            ("b30m scans a lot", "192.0.2.1", {"seconds": 1800, "reason": "scans a lot"}),
        ):
            asked = _all(TopState(), *keys, "enter")[1]
            body = {"network": address, **more}
            self.assertEqual(asked, [ChangeRequest("/api/bans", body, f"ban {address}")])
        state, sent = _all(TopState(), *"bscans", "enter")
        self.assertEqual((state.mode, state.result.is_bad, sent), ("value", True, []))
        self.assertEqual(_all(TopState(), *"b1h", "escape")[1], [])
        local = attrs.evolve(SNAPSHOT, connections=[{**CONNECTIONS[0], "client": "unix"}])
        state, sent = _all(TopState(), "b", "enter", snapshot=local)
        self.assertEqual((state.mode, sent), ("browse", [ExplainRequest("5f3a-1")]))
        state, sent = _all(TopState(), "down", "x")
        self.assertEqual((state.mode, sent), ("question", []))
        (ask,) = _all(state, "y", snapshot=attrs.evolve(SNAPSHOT, connections=CONNECTIONS[2:]))[1]
        what = "end connection 5f3a-2 from 192.0.2.2:50002"
        self.assertEqual(ask, ChangeRequest("/api/connections/5f3a-2/close", {}, what))
        for key in ("n", "enter", "escape", "q"):
            state, sent = _all(TopState(), "x", key)
            self.assertEqual((state.mode, sent, state.should_exit), ("browse", [], False))
            self.assertEqual(state.result.message, "nothing was changed")
        for keys in ("2x", "2e", "2b", "1d", "1W", "4m", "1w"):
            state, sent = _all(TopState(), *keys)
            self.assertEqual((sent, state.result.is_bad), ([], True))
        state, sent = _all(TopState(), "x", snapshot=Snapshot())
        self.assertEqual((sent, state.mode, state.result.is_bad), ([], "browse", True))

    @given(st.lists(st.sampled_from(_KEYS)), st.booleans())
    def test_any_keys_request_only_chosen_changes(self, keys: list[str], is_empty: bool) -> None:  # noqa: FBT001 - drawn
        snapshot = Snapshot() if is_empty else SNAPSHOT
        state = TopState()
        for key in keys:
            before = state
            state, wish = pressed(state, snapshot, key)
            if isinstance(wish, ChangeRequest):
                is_server = before.pane == "servers" and key == "u"
                is_answer = before.pending_confirmation == wish and key in {"y", "Y"}
                is_typed = before.mode == "value" and key == "enter"
                self.assertTrue(is_server or is_answer or is_typed, (key, wish))
        self.assertEqual(len(screen(state, snapshot, 80, 24)), 24)
