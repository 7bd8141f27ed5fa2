"""The state of servers that a process hands to its successor."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import servers
from txmux.backends.pool.member import Member, ResolvedAddress
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.server_health import MemberState, ServerOverride
from txmux.backends.upstreams import Upstreams
from txmux.rules.model import Backend, Check, Ejection

if TYPE_CHECKING:
    from txmux.backends.upstream import Upstream

EJECT = Ejection(failures=3, within=10, seconds=30)


class Process:
    """One that has a backend.

    Args:
        at: What its clock says at first.
        keys: The keys of the backend.
        hosts: The addresses of its servers.
    """

    def __init__(self, at: float, *hosts: str, **keys: Any) -> None:
        self.clock = Clock()
        self.clock.advance(at)
        self.upstreams = Upstreams(self.clock, self.clock, _dial, checking=False)
        backend = Backend("b", servers(*hosts or ("10.0.0.1:80", "10.0.0.2:80")), **keys)
        self.upstream: Upstream = self.upstreams.upstream_of(backend)
        self.pool = self.upstream.pool

    def pick(self) -> Member:
        found = self.pool.pick()
        assert isinstance(found, Member)
        return found

    def fail(self, number: int, times: int = 1) -> None:
        member = self.pool.members[number]
        for _ in range(times):
            others = [one for one in self.pool.members if one is not member]
            assert self.pool.pick("", others) is member
            self.pool.failed(member)

    def states(self) -> list[MemberState]:
        return [member.state for member in self.pool.members]

    def as_json(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(json.dumps(self.upstreams.as_json()))
        return found


class ToldTest(SynchronousTestCase):
    """The clocks of the processes say different times."""

    def test_rest_of_ejection(self) -> None:
        old, new = Process(1000, eject=EJECT), Process(5, eject=EJECT)
        old.fail(0, 3)
        old.clock.advance(12)
        new.upstreams.restore(old.as_json())
        self.assertEqual(new.states(), [MemberState.EJECTED, MemberState.UP])
        self.assertIn("connections that failed", new.pool.members[0].why)
        new.clock.advance(17.9)
        self.assertEqual({new.pick().target.text for _ in range(4)}, {"10.0.0.2:80"})
        new.clock.advance(0.2)
        self.assertEqual({new.pick().target.text for _ in range(4)}, {"10.0.0.1:80", "10.0.0.2:80"})

    def test_probe_is_repeated(self) -> None:
        old, new = Process(0, eject=EJECT), Process(0, eject=EJECT)
        old.fail(0, 3)
        old.clock.advance(31)
        while MemberState.PROBING not in old.states():
            old.pick()
        new.upstreams.restore(old.as_json())
        picked = {new.pick().target.text for _ in range(4)}
        self.assertEqual(picked, {"10.0.0.1:80", "10.0.0.2:80"})
        self.assertEqual(new.states()[0], MemberState.PROBING)

    def test_failures_count_on(self) -> None:
        for passed, state in ((5, MemberState.EJECTED), (11, MemberState.UP)):
            old, new = Process(70, eject=EJECT), Process(0, eject=EJECT)
            old.fail(0, 2)
            old.clock.advance(passed)
            new.upstreams.restore(old.as_json())
            new.fail(0)
            self.assertEqual(new.states()[0], state)

    def test_checks_count_on(self) -> None:
        check = Check("tcp", rise=2, fall=3)
        old, new = Process(100, check=check), Process(3, check=check)
        for host, times in (("10.0.0.1:80", 3), ("10.0.0.2:80", 2)):
            for _ in range(times):
                old.upstreams.apply_check("b", f"{host} {host}", ok=False, why="refused")
        old.clock.advance(60)
        new.upstreams.restore(old.as_json())
        self.assertEqual(new.states(), [MemberState.DOWN, MemberState.UP])
        health = new.pool.members[0].health
        self.assertEqual(new.clock.seconds() - health.since, 60)
        self.assertIn("refused", health.why)
        new.upstreams.apply_check("b", "10.0.0.2:80 10.0.0.2:80", ok=False, why="refused")
        self.assertEqual(new.states(), [MemberState.DOWN, MemberState.DOWN])

    def test_ready_again(self) -> None:
        """A server that was held is up since it is not any more, in the next process too; one that never was has no time."""
        old, new = Process(100), Process(7)
        key = ("b", "10.0.0.1:80")
        for order in (
            ServerOverride("drain"),
            ServerOverride("maintenance", weight=3),
            ServerOverride(weight=3),
        ):
            self.assertEqual([old.pool.since(member) for member in old.pool.members], [None, None])
            old.upstreams.apply_overrides({key: order})
            old.clock.advance(5)
        old.upstreams.apply_overrides({})
        new.upstreams.apply_overrides({})
        new.upstreams.restore(old.as_json())
        for process in (old, new):
            process.clock.advance(1)
            since = [process.pool.since(member) for member in process.pool.members]
            self.assertEqual(since, [6, None])

    def test_held(self) -> None:
        new = Process(7)
        new.upstreams.apply_overrides({("b", "10.0.0.1:80"): ServerOverride("drain")})
        new.upstreams.restore(Process(100).as_json())
        self.assertIsNone(new.pool.since(new.pool.members[0]))
        new.upstreams.apply_overrides({})
        self.assertEqual([new.pool.since(member) for member in new.pool.members], [0, None])

    def test_down_while_held(self) -> None:
        process = Process(100, check=Check("tcp", rise=1, fall=1))
        process.upstreams.apply_overrides({("b", "10.0.0.1:80"): ServerOverride("drain")})
        process.upstreams.apply_check("b", "10.0.0.1:80 10.0.0.1:80", ok=False, why="refused")
        process.clock.advance(9)
        process.upstreams.apply_overrides({})
        self.assertEqual(process.states(), [MemberState.DOWN, MemberState.UP])
        self.assertEqual(process.pool.since(process.pool.members[0]), 9)

    def test_other_rules(self) -> None:
        old = Process(0, eject=EJECT, check=Check("tcp", rise=1, fall=1))
        old.fail(0, 3)
        old.upstreams.apply_check("b", "10.0.0.2:80 10.0.0.2:80", ok=False, why="refused")
        new = Process(0, eject=None)
        new.upstreams.restore(old.as_json())
        self.assertEqual(new.states(), [MemberState.UP, MemberState.UP])

    def test_nonsense(self) -> None:
        """What no version would tell is overlooked, and what comes after it is not."""
        old, new = Process(0, eject=EJECT), Process(0, eject=EJECT)
        old.fail(0, 3)
        (first, second) = old.as_json()
        odd = [{**second, "backend": []}, {**second, "server": []}, {**second, "credit": math.inf}]
        new.upstreams.restore([*odd, first])
        self.assertEqual(new.states(), [MemberState.EJECTED, MemberState.UP])
        new.upstreams.known.expect([{**second, "connections": math.inf}, {**second, "backend": []}])

    def test_turns(self) -> None:
        hosts = ("10.0.0.1:80 weight=3", "10.0.0.2:80", "10.0.0.3:80 weight=2")
        one = Process(0, *hosts)
        expected = [one.pick().target.text for _ in range(12)]
        old = Process(0, *hosts)
        found = []
        for _ in range(12):
            found.append(old.pick().target.text)
            new = Process(0, *hosts)
            new.upstreams.restore(old.as_json())
            old = new
        self.assertEqual(found, expected)

    def test_names(self) -> None:
        old, new = Process(0, "web.test:80", eject=EJECT), Process(0, "web.test:80", eject=EJECT)
        addresses = [ResolvedAddress("10.0.0.1", 80), ResolvedAddress("10.0.0.2", 80)]
        (server,) = old.pool.backend.servers
        old.pool.set_addresses(server, addresses)
        old.fail(0, 3)
        new.upstreams.restore(old.as_json())
        new.pool.set_addresses(server, addresses)
        self.assertEqual(new.states(), [MemberState.EJECTED, MemberState.UP])

    def test_unknown(self) -> None:
        old, new = Process(0, eject=EJECT), Process(0, eject=EJECT)
        old.fail(1, 3)
        first, second = old.as_json()
        odd = [
            {},
            {"backend": "other"},
            {"backend": "b"},
            {**first, "state": "asleep"},
            {**first, "failed": 5},
            {**first, "colour": "blue"},
        ]
        new.upstreams.restore([*odd, second])
        self.assertEqual(new.states(), [MemberState.UP, MemberState.EJECTED])

    def test_bounded(self) -> None:
        new = Process(0)
        (health, _) = new.as_json()
        new.upstreams.restore({**health, "target": str(number)} for number in range(11_000))
        self.assertEqual(len(new.pool._backend_health._recalled), 10_000)


def _dial(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing is to be connected")


class ExpectedTest(SynchronousTestCase):
    """Connections that the other process is about to hand over."""

    def setUp(self) -> None:
        old = Process(100, balance="first")
        for _ in range(2):
            old.pick()
        self.new = Process(200, max_connections=3, balance="first")
        self.rooms: list[int] = []
        self.new.pool.on_room = lambda: self.rooms.append(self.new.pool.connections)
        self.new.upstreams.known.expect(old.as_json())

    def adopt(self) -> Member:
        found = self.new.upstreams.adopt("b", "10.0.0.1:80")
        assert found is not None
        return found[1]

    def counts(self) -> list[int]:
        pool = self.new.pool
        return [*(member.connections for member in pool.members), pool.connections]

    def test_expected_have_slots(self) -> None:
        self.assertEqual(self.counts(), [2, 0, 2])
        self.new.pick()
        self.assertIs(self.new.pool.pick(), Unavailable.FULL)
        members = [self.adopt(), self.adopt()]
        self.assertEqual(self.counts(), [3, 0, 3])
        self.adopt()  # one more than was told
        self.assertEqual(self.counts(), [4, 0, 4])
        self.new.upstreams.known.expect(())
        self.assertEqual(self.counts(), [4, 0, 4])
        for member in members:
            self.new.pool.released(member)
        self.assertEqual(self.counts(), [2, 0, 2])

    def test_missing_free_slots(self) -> None:
        self.adopt()
        self.rooms.clear()
        self.new.upstreams.known.expect(())
        self.assertEqual(self.counts(), [1, 0, 1])
        self.assertEqual(self.rooms, [1])

    def test_others(self) -> None:
        fields: list[dict[str, Any]] = [
            {"backend": "x", "server": "y", "target": "z", "connections": 5},
            {"backend": "b", "server": "10.0.0.1:80", "target": "10.0.0.1:80"},
        ]
        self.new.upstreams.known.expect(fields)
        self.assertEqual(self.counts(), [0, 0, 0])
