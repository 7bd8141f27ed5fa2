"""What passes between processes: each kind of document is as processes of earlier versions write and read it."""

import json
import math
from collections import deque
from ipaddress import ip_network
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.bans import Ban
from txmux.backends.health.observer import ServerObservation
from txmux.backends.pool.server_health import MemberState, ServerHealth, ServerOverride
from txmux.classes import define
from txmux.client.overrides import Overrides
from txmux.control.rates import Rates
from txmux.telemetry.record import ConnectionRecord
from txmux.udp.connection_ids import ConnectionIds
from txmux.udp.migration import Migration, Visitor
from txmux.wire import codec
from txmux.wire.client_hello import ClientHello
from txmux.wire.codec import AGE, LEFT, PLACE, TEXT, UNTIL, WHOLE, Origin, each, optional, sent
from txmux.wire.jsontext import MISSHAPEN
from txmux.wire.quic.decided import DecidedHello

_NOW = Origin(100.0)


def in_json(document: Any) -> Any:
    return json.loads(json.dumps(document, allow_nan=False))


@define
class Thing:
    name: str = sent(TEXT)
    own: int = 0
    count: int = sent(WHOLE, name="number", default=1)
    since: float = sent(optional(AGE, 0.0), default=0.0)
    until: float = sent(UNTIL, is_needed=True, default=math.inf)
    _places: tuple[str, ...] = sent(each(PLACE, some=slice(2)), default=())


class ValuesTest(SynchronousTestCase):
    def see(self, instance: Any, recorded: Any) -> None:
        document = in_json(codec.write(instance, _NOW))
        self.assertEqual(document, recorded)
        self.assertEqual(codec.write(codec.read(type(instance), document, _NOW), _NOW), recorded)

    def test_state_of_a_server(self) -> None:
        health = ServerHealth(
            MemberState.PROBING, why="x", connections=3, credit=1.5, contrary=2,
            failed_at=deque([90.0, 95.5]), out_until=104.0, since=40.0, came_at=60.0,
        )  # fmt: skip
        self.see(health, {
            "state": "ejected", "why": "x", "age": 60.0, "came": 40.0, "credit": 1.5,
            "failed": [10.0, 4.5], "out": 4.0, "contrary": 2,
        })  # fmt: skip
        self.see(ServerHealth(), {
            "state": "up", "why": "", "age": None, "came": None, "credit": 0, "failed": [],
            "out": 0.0, "contrary": 1 << 30,
        })  # fmt: skip
        recorded = {
            "failures": 3, "kind": "connect-refused", "cause": "c", "failed": [60.0, 5.0], "clients": 4,
            "asked": [50.0, 20.0], "sources": {"17": 8.0}, "resets": [2, 17], "by_clients": 1,
            "tried": 6, "usual": 1.5, "last_try": 3.0,
        }  # fmt: skip
        observation = ServerObservation()
        observation.restore(recorded, 100.0)
        self.assertEqual(in_json(observation.as_json(100.0)), recorded)
        observation.restore({**recorded, "kind": "of a later version"}, 100.0)
        self.assertEqual(observation.as_json(100.0)["kind"], "error")
        del recorded["last_try"]  # as an older version, which knew none
        observation.restore(recorded, 100.0)
        self.assertEqual(observation.as_json(100.0)["last_try"], 100.0)

    def test_path_of_a_flow(self) -> None:
        place = Origin(100.0, lambda place: ["at", place], lambda named: named[1])
        recorded: dict[str, Any] = {
            "kind": "q", "own_id": "6f776e", "ids": ["616263", "646566"], "shared": ["646566"],
            "before": [["at", "a"], ["at", "b"]], "moves": [10.0, 1.0], "rests": 30.0, "quiet": 2.0,
            "visitor": {
                "address": ["at", "v"], "silent": 3.0, "is_near": False, "is_proved": True,
                "received": 5, "sent": 7, "is_alone": False,
            },
        }  # fmt: skip
        path = Migration[str]().restore("flow", "home", recorded, place)
        assert path is not None
        self.assertEqual(in_json(path.as_json(place)), recorded)
        visitor = path.visitor
        assert isinstance(visitor, Visitor)
        self.assertEqual((visitor.address, visitor.since, visitor.sent), ("v", 97.0, 7))
        fresh = {
            "kind": "w", "own_id": "", "ids": [], "shared": [], "before": [], "moves": [],
            "rests": 0.0, "quiet": None, "visitor": None,
        }  # fmt: skip
        path = Migration[str]().restore("flow", "home", fresh, place)
        assert path is not None
        self.assertEqual(in_json(path.as_json(place)), fresh)

    def test_connection_ids(self) -> None:
        known = (b"\x03", b"\x04")
        self.see(ConnectionIds(b"\x01\x02", known, (b"\0\0\0\1",), b"\x04", b"\x04"), {
            "own": "0102", "known": ["03", "04"], "versions": ["00000001"], "served": "04",
            "current": "04",
        })  # fmt: skip
        self.see(ConnectionIds(b"", (b"\x03",)), {
            "own": "", "known": ["03"], "versions": [], "served": None, "current": None,
        })  # fmt: skip

    def test_decided_hello(self) -> None:
        """See `txmux.wire.quic.decided`."""
        opening = ["0102030405060708", 3, "", [[9, "eHk="]]]
        recorded: dict[str, Any] = {
            "hello": ["a.example", ["h2", "h3"], "1.3", True],
            "is_over": True,
            "openings": [opening],
        }
        decided = codec.read(DecidedHello, recorded)
        self.assertEqual(decided.hello, ClientHello("a.example", ("h2", "h3"), "1.3", ech=True))
        fresh: dict[str, Any] = {"hello": None, "is_over": False, "openings": []}
        for its in (recorded, fresh):
            self.assertEqual(in_json(codec.write(codec.read(DecidedHello, its))), its)

    def test_what_operators_have_set(self) -> None:
        self.see(
            Ban(ip_network("192.0.2.0/24"), 40.0, 160.0, "scans"),
            {"network": "192.0.2.0/24", "age": 60.0, "left": 60.0, "reason": "scans"},
        )
        self.see(
            Ban(ip_network("2001:db8::1"), 40.0),
            {"network": "2001:db8::1", "age": 60.0, "left": None, "reason": ""},
        )
        servers = {("b", "s"): ServerOverride("drain", 3, 5.0)}
        self.see(Overrides(servers, frozenset(["y", "x"]), {"h": 160.0, "i": math.inf}), {
            "servers": [{"backend": "b", "server": "s", "state": "drain", "weight": 3, "since": 5.0}],
            "shut": ["x", "y"], "held": {"h": 60.0, "i": None},
        })  # fmt: skip
        self.see(Overrides(), {"servers": [], "shut": [], "held": {}})

    def test_history(self) -> None:
        clock = Clock()
        rates = Rates(clock.seconds)
        rates.record({"connections": 3}, 2)
        clock.advance(10)
        recorded = [{"ago": 10.0, "totals": {"connections": 3}, "active": 2}]
        self.assertEqual(in_json(rates.as_json()), recorded)
        other = Rates(lambda: 1000.0)
        other.restore([{"ago": "x", "totals": {}, "active": 1}, {"ago": 1.0}, *recorded])
        self.assertEqual(other.as_json(), recorded)

    def test_record(self) -> None:
        record = ConnectionRecord(1.5, "a-1", "x", "192.0.2.1:5")
        recorded: dict[str, Any] = {
            "time": 1.5, "id": "a-1", "listener": "x", "client": "192.0.2.1:5", "local": None,
            "route": None, "backend": None, "server": None, "server_local": None, "bytes_in": 0,
            "bytes_out": 0, "datagrams_in": None, "datagrams_out": None, "detect_ms": None,
            "connect_ms": None, "duration_ms": None, "reason": None, "facts": {},
        }  # fmt: skip
        self.see(record, recorded)
        record.note(sni="a.example")
        self.see(record, {**recorded, "facts": {"sni": "a.example"}})
        several: tuple[dict[str, Any], ...] = (
            {"id": 1}, {"time": "x"}, {"route": 1}, {"facts": []}, {"facts": {"a": 1}},
        )  # fmt: skip
        for wrong in several:
            self.assertRaises(MISSHAPEN, codec.read, ConnectionRecord, {**recorded, **wrong})

    def test_marked_fields_by_another_clock(self) -> None:
        thing = Thing("a", 5, 2, 90.0, 130.0, ("x", "y"))
        its = Origin(100.0, name_place=str.upper)
        written = {"name": "a", "number": 2, "since": 10.0, "until": 30.0, "places": ["X", "Y"]}
        self.assertEqual(codec.write(thing, its), written)
        there = Origin(1000.0, find_place={"X": "x", "Z": "z"}.get)
        more = {**written, "places": ["X", "Y", "Z"], "later": 1}
        self.assertEqual(codec.read(Thing, more, there), Thing("a", 0, 2, 990.0, 1030.0, ("x",)))

    def test_missing_and_other_values(self) -> None:
        self.assertEqual(codec.read(Thing, {"name": "a", "until": None}), Thing("a"))
        for values in ({"name": "a"}, {"until": None}):
            self.assertRaises(KeyError, codec.read, Thing, values)
        thing = Thing("a", 5, 7)
        codec.update(thing, {"name": "b"})
        self.assertEqual(thing, Thing("b", 5, 7))
        good = {"name": "a", "until": 1.0}
        several: tuple[dict[str, Any], ...] = (
            {"name": 1}, {"name": None}, {"number": "1"}, {"number": 1.5}, {"until": "x"},
            {"until": math.inf}, {"since": math.nan}, {"since": []}, {"places": 1}, {"places": None},
        )  # fmt: skip
        for wrong in several:
            self.assertRaises(MISSHAPEN, codec.read, Thing, {**good, **wrong})
        self.assertEqual((LEFT.write(99.0, _NOW), LEFT.write(-math.inf, _NOW)), (0.0, 0.0))
