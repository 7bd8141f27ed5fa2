"""The backends of a process: under changed rules, checked by another process, and handed over."""

import gc
import json
import math
import os
import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any
from unittest import SkipTest
from unittest.mock import patch

import attrs
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import servers
from tests.support.dialler import played
from tests.support.folders import make_folder
from tests.support.held import held_by
from txmux.backends.health.checks import key_of
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.hold import HeldClient
from txmux.backends.pool.member import Member, ResolvedAddress
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.server_health import MemberState, ServerOverride
from txmux.backends.upstream import Upstream
from txmux.backends.upstreams import PreparedUpstreams, ServerStarter, Upstreams
from txmux.detection.ranked import finish
from txmux.rules.model import Backend, Check, Ejection, Refusal, Rules, ServerTLS, Settings
from txmux.rules.reading.parser import load
from txmux.telemetry.reasons import ConnectFailure
from txmux.testing.predicates import calls_in

ONCE = Ejection(failures=1, within=10, seconds=10, lone=True)


class ChangingUpstreams:
    def __init__(self) -> None:
        self.clock = Clock()
        self.upstreams = Upstreams(self.clock, self.clock, played(_dial))
        self.upstreams.start()

    def prepare(self, *backends: Backend) -> PreparedUpstreams:
        named = {backend.name: backend for backend in backends}
        rules = Rules(Path("rules"), Settings(), (), (), named)
        return finish(self.upstreams.prepare_all_in_steps(rules))

    def change(self, *texts: str, **keys: Any) -> Upstream:
        backend = Backend("b", servers(*texts), **keys)
        self.prepare(backend).commit()
        return self.upstreams.upstream_of(backend)


def pick(upstream: Upstream) -> Member:
    found = upstream.pool.pick()
    assert found is not None
    return found  # type: ignore[return-value]


class ChangedTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.its = ChangingUpstreams()

    def test_who_waits(self) -> None:
        upstream = self.its.change("10.0.0.1:80")
        outcomes: tuple[tuple[ConnectFailure, ConnectFailure | None], ...] = (
            ("tls-failed", "tls-failed"), ("connect-refused", None),
        )  # fmt: skip
        for cause, outcome in outcomes:
            client = HeldClient(0.0, 60.0, lambda: True, self.fail)
            self.assertEqual(upstream.hold(client, cause), outcome)

    def test_counts(self) -> None:
        old = self.its.change("10.0.0.1:80")
        member = pick(old)
        new = self.its.change("10.0.0.1:80 max_connections=1", queue=1)
        (same,) = new.pool.members
        self.assertEqual((old.current(), new.current()), (new, new))
        self.assertEqual((same.connections, new.pool.connections), (1, 1))
        room: list[bool] = []
        queue = new.queue
        assert queue is not None

        def turn() -> bool:
            room.append(same.has_room())
            return room[-1]

        queue.add_client(turn, lambda: None)
        old.pool.connected(member)
        old.pool.released(member)
        self.assertEqual((same.connections, room), (0, [True]))

    def test_not_installed(self) -> None:
        """What cannot be imported any more changes nothing, and once it can be, it is as if nothing had been."""
        named = Backend("b", servers("web.test:80"), check=Check("tcp"))
        for module in ("addresses", "lookup"):
            with patch.dict(sys.modules, {f"txmux.backends.names.{module}": None}):
                self.assertRaises(ImportError, self.its.prepare, named)
        self.assertEqual(self.its.upstreams.all(), [])
        self.assertEqual(self.its.clock.getDelayedCalls(), [])

    def test_turns(self) -> None:
        first = pick(self.its.change("10.0.0.1:80", "10.0.0.2:80"))
        second = pick(self.its.change("10.0.0.1:80", "10.0.0.2:80", retries=7))
        self.assertNotEqual(first.target.text, second.target.text)
        self.assertIs(self.its.change("10.0.0.1:80"), self.its.change("10.0.0.1:80"))  # same

    def test_ejection(self) -> None:
        old = self.its.change("10.0.0.1:80", "10.0.0.2:80", eject=ONCE)
        out = pick(old)
        old.pool.failed(out)
        self.its.clock.advance(6)
        new = self.its.change("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", eject=ONCE)
        states = [member.state for member in new.pool.members]
        self.assertEqual(states, [MemberState.EJECTED, MemberState.UP, MemberState.UP])
        self.its.clock.advance(4)
        probe = next(found for found in iter(lambda: pick(new), None) if found.target == out.target)
        new.pool.connected(probe)
        self.assertIs(out.state, MemberState.UP)
        self.assertIn(out, {pick(old) for _ in range(2)})

    def test_checks_hold_for_all_rules(self) -> None:
        clock = self.its.clock
        upstreams = self.its.upstreams = Upstreams(clock, clock, played(_dial), checking=False)
        upstreams.start()
        check = Check("tcp", fall=2)
        old = self.its.change("10.0.0.1:80", check=check)
        (member,) = self.its.change("10.0.0.1:80", check=check, retries=5).pool.members
        for ok, state in ((False, MemberState.DOWN), (True, MemberState.UP)):
            upstreams.apply_check("b", key_of(member), ok=ok, why="refused")
            self.assertEqual([member.state, old.pool.members[0].state], [state, state])

    def test_told_once(self) -> None:
        old = self.its.change("10.0.0.1:80", eject=ONCE)
        new = self.its.change("10.0.0.1:80", eject=ONCE, retries=7)
        with capturedLogs() as events:
            new.pool.failed(pick(new))
        self.assertEqual(len([e for e in events if "no server is up" in e["log_format"]]), 1)
        self.assertIs(old.pool.members[0].state, MemberState.EJECTED)

    def lines(self, *steps: tuple[Upstream, str, str]) -> list[str]:
        """Apply results of checks, ``+`` or ``-`` for a server of an upstream, and return what is logged at info or above."""
        with capturedLogs() as events:
            for upstream, server, results in steps:
                [member] = [one for one in upstream.pool.members if one.server.text == server]
                for result in results:
                    upstream.pool.check_result(member, ok=result == "+", why="refused")
        shown = (event for event in events if event["log_level"] is not LogLevel.debug)
        return [f"{event['log_level'].name} {formatEvent(event)}" for event in shown]

    def test_last_server_down(self) -> None:
        for prefix in ("", "udp:"):
            one, two = f"{prefix}10.0.0.1:80", f"{prefix}10.0.0.2:80"
            check = Check("dns" if prefix else "tcp", fall=1, rise=1)
            both = self.its.change(one, two, check=check)
            failed = "down: 1 check failed; last: refused"
            self.assertEqual(
                self.lines((both, one, "-"), (both, two, "-"), (both, two, "+"), (both, one, "+")),
                [
                    f"warn backend b: {one} is {failed}",
                    f"warn backend b: {two} is {failed}",
                    "warn backend b: no server is up",
                    f"info backend b: {two} is up: 1 check succeeded",
                    "info backend b: 1 server is up again",
                    f"info backend b: {one} is up: 1 check succeeded",
                ],
            )

    def test_backends_in_trouble(self) -> None:
        one, two = "10.0.0.1:80", "10.0.0.2:80"
        upstream = self.its.change(one, two, check=Check("tcp", fall=1, rise=1))
        upstreams, used = self.its.upstreams, {"b": upstream.backend}
        for server, result, troubled, without in (
            (one, "+", [], []), (one, "-", ["b"], []), (two, "-", ["b"], ["b"]),
            (one, "+", ["b"], []), (two, "+", [], []),
        ):  # fmt: skip
            self.lines((upstream, server, result))
            found = upstreams.troubled(), upstreams.without_server(lambda: used)
            self.assertEqual(found, (troubled, without))

    def checked_in_a_unit(self, check: str, count: int) -> tuple[Path, Path]:
        """Write rules, and a file that they include, which has so many servers and may become another user's."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        rules = make_folder(self) / "rules.ini"
        unit = rules.parent / "d" / "a.ini"
        unit.parent.mkdir()
        rules.write_text("[txmux]\ninclude = d/*.ini\n[listen p]\nendpoint = :1\n")
        many = "\n ".join(f"10.0.0.1:{port}" for port in range(1, count + 1))
        backend = f"[backend b]\ncheck = {check}\nserver = {many}\n"
        unit.write_text(f"[listen a]\nendpoint = :2\ndefault = b\n{backend}")
        return rules, unit

    def test_checks_of_another_user(self) -> None:
        """All servers of a user's files are checked so often in all; those of root's as their rules say."""
        rules, unit = self.checked_in_a_unit("tcp interval=1s", 300)
        for owner, expected in ((0, 300), (12345, 100)):
            os.chown(unit, owner, -1)
            dialled: list[float] = []
            clock = Clock()

            def dial(*_: Any, clock: Clock = clock, seen: list[float] = dialled, **__: Any) -> Any:
                seen.append(clock.seconds())
                return lambda: None

            upstreams = Upstreams(clock, clock, played(dial))
            upstreams.add_backends(load(rules))
            upstreams.start()
            clock.pump([0.1] * 300)
            found = sum(at >= 10 for at in dialled) / 20
            self.assertIn(round(found), range(expected * 9 // 10, expected + 2))
            upstreams.stop()

    def test_lines_of_another_user(self) -> None:
        """When thousands of servers of a user's file go down, the log has few lines of that, and says how many more there are."""
        rules, unit = self.checked_in_a_unit("tcp", 30)
        for owner, expected, more in ((0, 30, []), (12345, 5, ["25 more lines"])):
            os.chown(unit, owner, -1)
            clock = Clock()
            upstreams = Upstreams(clock, clock, played(_dial))
            upstreams.add_backends(load(rules))
            [upstream] = upstreams.all()
            texts = [member.server.text for member in upstream.pool.members]
            lines = self.lines(*((upstream, text, "-") for text in texts))
            self.assertEqual([" is down: " in line for line in lines], [True] * expected + [False])
            self.assertIn("no server is up", lines[-1])
            with capturedLogs() as events:
                clock.advance(60)
            wanted = [
                f"user {owner}: {one} about servers in 60 s; 'txmux servers' lists what is down"
                for one in more
            ]
            self.assertEqual([*map(formatEvent, events)], wanted)

    def test_lines_of_another_user_in_a_worker(self) -> None:
        """So it is where connections fail, and no checks: in a worker, by whose file it is after a reload."""
        rules, unit = self.checked_in_a_unit("tcp\neject = failures=1 within=10s for=10s", 30)
        for before, owner, expected in ((0, 0, 30), (0, 12345, 5), (12345, 12345, 5)):
            clock = Clock()
            names = NameResolver(clock, is_active=False)
            upstreams = Upstreams(clock, clock, played(_dial), checking=False, names=names)
            os.chown(unit, before, -1)
            upstreams.add_backends(load(rules))
            os.chown(unit, owner, -1)
            finish(upstreams.prepare_all_in_steps(load(rules))).commit()
            [upstream] = upstreams.all()
            with capturedLogs() as events:
                for member in upstream.pool.members:
                    upstream.pool.failed(member)
            texts = [str(formatEvent(one)) for one in events if one["log_level"] is LogLevel.warn]
            self.assertEqual(sum(" is ejected: " in text for text in texts), expected)

    def test_names_without_an_address(self) -> None:
        with capturedLogs() as events:
            clock, backend = self.its.clock, Backend("b", servers("db.example:80"))
            pool = Upstreams(clock, clock, played(_dial)).upstream_of(backend).pool
            pool.commit()
            for hosts in ([], ["10.0.0.1"], [], ["10.0.0.2", "10.0.0.3"]):
                addresses = [ResolvedAddress(host, 80) for host in hosts]
                pool.set_addresses(pool.backend.servers[0], addresses)
        expected = ["backend b: no server is up", "backend b: 2 servers are up again"]
        self.assertEqual([*map(formatEvent, events)], expected)

    def test_last_server_down_over_a_reload(self) -> None:
        server = "10.0.0.1:80"
        spare = Backend("spare", servers("10.0.9.1:80"))
        check = Check("tcp", fall=1, rise=1)
        old = self.its.change(server, check=check, fallback=spare)
        _, said = self.lines((old, server, "-"))
        self.assertEqual(said, "warn backend b: no server is up; clients go to its fallback")
        with capturedLogs() as events:
            new = self.its.change(server, check=check, retries=7)
        self.assertEqual(events, [])
        _, said = self.lines((new, server, "+"))
        self.assertEqual(said, "info backend b: 1 server is up again")
        # Rules that leave no server up say so, and those that bring one say that, too.
        one, two = "10.0.0.1:80", "10.0.0.2:80"
        self.lines((self.its.change(one, two, check=check), one, "-"))
        lines = []
        for texts in ((one, f"{two} down"), (one,), (one, two)):
            with capturedLogs() as events:
                self.its.change(*texts, check=check)
            lines.append([formatEvent(event) for event in events])
        expected = [["backend b: no server is up"], [], ["backend b: 1 server is up again"]]
        self.assertEqual(lines, expected)

    def test_drained_server_that_is_down_and_ready_again(self) -> None:
        server = "10.0.0.1:80"
        changed = self.its.change(server, "10.0.0.2:80", check=Check("tcp", fall=1, rise=1))
        self.its.upstreams.apply_overrides({("b", server): ServerOverride("drain")})
        drained = "backend b: 10.0.0.1:80 is drained by an operator"
        self.assertEqual(
            self.lines((changed, server, "--++")),
            [
                f"warn {drained}, and down: 1 check failed; last: refused",
                f"info {drained}, and up again",
            ],
        )
        served = list[str]()
        changed.pool.on_room = lambda: served.append("those that wait")
        with capturedLogs() as events:
            self.its.upstreams.apply_overrides({})
        line = formatEvent(events[0])
        self.assertEqual(line, f"backend b: {server} is ready again, by an operator")
        self.assertEqual(served, ["those that wait"])

    def test_checks(self) -> None:
        self.its.change("10.0.0.1:80", check=Check("tcp"))
        self.assertEqual(len(self.its.clock.getDelayedCalls()), 1)
        self.its.change("10.0.0.1:80", "10.0.0.2:80", check=Check("tcp"))
        self.assertEqual(len(self.its.clock.getDelayedCalls()), 2)
        self.its.change("10.0.0.1:80")
        self.assertEqual(self.its.clock.getDelayedCalls(), [])
        self.its.upstreams.stop()  # only a service that runs checks
        self.its.change("10.0.0.1:80", check=Check("tcp"))
        self.its.upstreams.start()
        self.assertEqual(len(self.its.clock.getDelayedCalls()), 1)
        self.its.upstreams.start()  # until the last user stops
        for goes_on in (True, False):
            self.successResultOf(self.its.upstreams.stop())
            self.assertEqual(bool(self.its.clock.getDelayedCalls()), goes_on)

    def test_abandoned(self) -> None:
        old = self.its.change("10.0.0.1:80", check=Check("tcp"))
        calls = self.its.clock.getDelayedCalls()
        self.its.prepare(attrs.evolve(old.backend, retries=7, check=None)).abandon()
        self.assertEqual(self.its.clock.getDelayedCalls(), calls)
        self.assertIs(self.its.upstreams.upstream_of(old.backend), old)
        self.assertEqual(len(self.its.upstreams.all()), 1)
        ca = make_folder(self) / "ca.pem"  # problems
        prepared = self.its.prepare(
            Backend("b", servers("10.0.0.1:80"), tls=ServerTLS(ca=ca)),
            Backend("c", servers("10.0.0.1:80"), tls=ServerTLS(ca=ca)),
        )
        self.assertEqual([text[:11] for text in prepared.problems], ["[backend b]", "[backend c]"])
        prepared.abandon()


def _dial(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing is to be dialled")


EJECT = Ejection(failures=3, within=10, seconds=30)


class Process:
    """One that has a backend, and whose clock begins at some time."""

    def __init__(self, at: float, *hosts: str, **keys: Any) -> None:
        self.clock = Clock()
        self.clock.advance(at)
        self.upstreams = Upstreams(self.clock, self.clock, played(_dial), checking=False)
        backend = Backend("b", servers(*hosts or ("10.0.0.1:80", "10.0.0.2:80")), **keys)
        self.upstream: Upstream = self.upstreams.upstream_of(backend)
        self.pool = self.upstream.pool

    def pick(self) -> Member:
        return pick(self.upstream)

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
    def test_rest_of_ejection(self) -> None:
        old, new = Process(1000, eject=EJECT), Process(5, eject=EJECT)
        old.fail(0, 3)
        old.clock.advance(12)
        new.upstreams.restore(old.as_json())
        self.assertEqual(new.states(), [MemberState.EJECTED, MemberState.UP])
        self.assertIn("connections failed", new.pool.members[0].why)
        new.clock.advance(17.9)
        self.assertEqual({new.pick().target.text for _ in range(4)}, {"10.0.0.2:80"})
        new.clock.advance(0.2)
        self.assertEqual({new.pick().target.text for _ in range(4)}, {"10.0.0.1:80", "10.0.0.2:80"})
        old, new = Process(0, eject=EJECT), Process(0, eject=EJECT)  # probe is repeated
        old.fail(0, 3)
        old.clock.advance(31)
        while MemberState.PROBING not in old.states():
            old.pick()
        new.upstreams.restore(old.as_json())
        self.assertEqual({new.pick().target.text for _ in range(4)}, {"10.0.0.1:80", "10.0.0.2:80"})
        self.assertEqual(new.states()[0], MemberState.PROBING)

    def test_state_counts_on(self) -> None:
        for passed, state in ((5, MemberState.EJECTED), (11, MemberState.UP)):
            old, new = Process(70, eject=EJECT), Process(0, eject=EJECT)
            old.fail(0, 2)
            old.clock.advance(passed)
            new.upstreams.restore(old.as_json())
            new.fail(0)
            self.assertEqual(new.states()[0], state)
        # The first check decides of a server that nothing is known of, and of none that another process has had.
        for knew, state in ((True, MemberState.UP), (False, MemberState.DOWN)):
            process = Process(3, check=Check("tcp", fall=2))
            process.upstreams.restore([], knew=knew)
            process.pool.check_result(process.pool.members[0], ok=False, why="refused")
            self.assertEqual(process.states(), [state, MemberState.UP])
        old, new = Process(0, "web.test:80", eject=EJECT), Process(0, "web.test:80", eject=EJECT)
        addresses = [ResolvedAddress("10.0.0.1", 80), ResolvedAddress("10.0.0.2", 80)]  # names
        (server,) = old.pool.backend.servers
        old.pool.set_addresses(server, addresses)
        old.fail(0, 3)
        new.upstreams.restore(old.as_json())
        new.pool.set_addresses(server, addresses)
        self.assertEqual(new.states(), [MemberState.EJECTED, MemberState.UP])
        hosts = ("10.0.0.1:80 weight=3", "10.0.0.2:80", "10.0.0.3:80 weight=2")  # turns
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

    def test_checks_count_on(self) -> None:
        check = Check("tcp", rise=2, fall=3)
        old, new = Process(100, check=check), Process(3, check=check)
        for member, times in zip(old.pool.members, (3, 2), strict=True):
            for ok in (True, *[False] * times):
                old.pool.check_result(member, ok=ok, why="refused")
        old.clock.advance(60)
        new.upstreams.restore(old.as_json())
        self.assertEqual(new.states(), [MemberState.DOWN, MemberState.UP])
        health = new.pool.members[0].health
        self.assertEqual(new.clock.seconds() - health.since, 60)
        self.assertIn("refused", health.why)
        new.pool.check_result(new.pool.members[1], ok=False, why="refused")
        self.assertEqual(new.states(), [MemberState.DOWN, MemberState.DOWN])

    def test_held(self) -> None:
        new = Process(7)
        new.upstreams.apply_overrides({("b", "10.0.0.1:80"): ServerOverride("drain")})
        new.upstreams.restore(Process(100).as_json())
        self.assertIsNone(new.pool.since(new.pool.members[0]))
        new.upstreams.apply_overrides({})
        self.assertEqual([new.pool.since(member) for member in new.pool.members], [0, None])
        process = Process(100, check=Check("tcp", rise=1, fall=1))  # down while held
        process.upstreams.apply_overrides({("b", "10.0.0.1:80"): ServerOverride("drain")})
        process.upstreams.apply_check("b", "10.0.0.1:80 10.0.0.1:80", ok=False, why="refused")
        process.clock.advance(9)
        process.upstreams.apply_overrides({})
        self.assertEqual(process.states(), [MemberState.DOWN, MemberState.UP])
        self.assertEqual(process.pool.since(process.pool.members[0]), 9)
        # A server that was held is up since it is not any more, in the next process too; one that never was has no time.
        old, new = Process(100), Process(7)
        drain, weighed = ServerOverride("drain"), ServerOverride(weight=3)
        orders = drain, ServerOverride("maintenance", weight=3), weighed
        for order in orders:
            self.assertEqual([old.pool.since(member) for member in old.pool.members], [None, None])
            old.upstreams.apply_overrides({("b", "10.0.0.1:80"): order})
            old.clock.advance(5)
        old.upstreams.apply_overrides({})
        new.upstreams.apply_overrides({})
        new.upstreams.restore(old.as_json())
        for process in (old, new):
            process.clock.advance(1)
            since = [process.pool.since(member) for member in process.pool.members]
            self.assertEqual(since, [6, None])

    def test_nothing_is_told_of_servers_as_at_the_start(self) -> None:
        """There may be thousands of backends, and a worker that starts reads what is told."""
        old, new = Process(100, eject=EJECT), Process(7, eject=EJECT)
        self.assertEqual(old.as_json(), [])
        new.upstreams.restore([])
        self.assertEqual({member.health.came_at for member in new.pool.members}, {0.0})
        member = old.pick()
        self.assertEqual([row["connections"] for row in old.as_json()], [1, 0])
        old.pool.connected(member)
        old.pool.released(member)
        while old.pick() is not old.pool.members[1]:
            pass
        self.assertEqual(len(old.as_json()), 2)
        self.assertEqual(len(Process(100, slow_start=5.0).as_json()), 2)

    def test_nonsense(self) -> None:
        """What no version would tell is overlooked, and what comes after it is not."""
        old, new = Process(0, eject=EJECT), Process(0, eject=EJECT)
        old.fail(0, 3)
        (first, second) = old.as_json()
        odd = [{**second, "backend": []}, {**second, "server": []}, {**second, "credit": math.inf}]
        new.upstreams.restore([*odd, first])
        self.assertEqual(new.states(), [MemberState.EJECTED, MemberState.UP])
        new.upstreams.known.expect([{**second, "connections": math.inf}, {**second, "backend": []}])
        old, new = Process(0, eject=EJECT), Process(0, eject=EJECT)  # unknown
        old.fail(1, 3)
        first, second = old.as_json()
        odd = [
            {}, {"backend": "other"}, {"backend": "b"}, {**first, "state": "asleep"},
            {**first, "failed": 5}, {**first, "colour": "blue"},
        ]  # fmt: skip
        new.upstreams.restore([*odd, second])
        self.assertEqual(new.states(), [MemberState.UP, MemberState.EJECTED])
        new = Process(0, slow_start=5.0)  # so that all is told
        (health, _) = new.as_json()
        held = list[int]()
        for count in (9_000, 10_000, 11_000):
            new.upstreams.restore({**health, "target": str(number)} for number in range(count))
            held.append(held_by(new.pool.backend_health))
        self.assertLess(held[0], held[1])
        self.assertEqual(held[1], held[2])


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
        """What is said of servers that are not known changes nothing."""
        member = self.adopt()
        self.rooms.clear()
        self.new.upstreams.known.expect(())
        self.assertEqual(self.counts(), [1, 0, 1])
        self.assertEqual(self.rooms, [1])
        self.new.pool.released(member)
        fields: list[dict[str, Any]] = [
            {"backend": "x", "server": "y", "target": "z", "connections": 5},
            {"backend": "b", "server": "10.0.0.1:80", "target": "10.0.0.1:80"},
        ]
        self.new.upstreams.known.expect(fields)
        self.assertEqual(self.counts(), [0, 0, 0])

    def test_addresses_of_a_server(self) -> None:
        """Which of them the other process has is not known: each has an equal part."""
        known = self.new.pool.backend_health
        more = known.health_of(("10.0.0.1:80", "10.0.0.9:80"))
        row = {"backend": "b", "server": "10.0.0.1:80"}
        self.new.upstreams.known.expect([{**row, "connections": number} for number in (2, 3)])
        (first, *_) = self.new.pool.members
        self.assertEqual(sorted((first.connections, more.connections)), [2, 3])
        self.assertEqual(known.connections, 5)


class HeardTest(SynchronousTestCase):
    def backend(self, text: str) -> None:
        self.process = Process(0, text, check=Check("tcp", rise=2, fall=3))
        self.pool = self.process.pool

    def hear(self, *, ok: bool, key: str = "web.test:80 10.0.0.1:80") -> None:
        self.process.upstreams.apply_check("b", key, ok=ok, why="refused")

    def resolve(self, *hosts: str) -> list[MemberState]:
        (server,) = self.pool.backend.servers
        self.pool.set_addresses(server, [ResolvedAddress(host, 80) for host in hosts])
        return self.process.states()

    def test_thousands_of_new_addresses_ask_the_system_nothing(self) -> None:
        """They come at once, while clients wait."""
        self.backend("web.test:80")
        hosts = [f"10.0.{number // 250}.{number % 250}" for number in range(1000)]
        self.resolve(hosts[0])
        self.assertLess(calls_in(partial(self.resolve, *hosts)), 80 * len(hosts))

    def test_what_another_process_finds_is_logged_as_debug(self) -> None:
        self.backend("10.0.0.1:80")
        key = key_of(self.pool.members[0])
        with capturedLogs() as events:
            self.hear(ok=False, key=key)
            self.assertEqual(self.pool.members[0].state, MemberState.DOWN)
            self.hear(ok=True, key=key)
            self.assertEqual(self.pool.members[0].state, MemberState.UP)
        self.assertEqual([event["log_level"].name for event in events], ["debug", "debug"])
        # An ejection by this process is a warning.
        pool = Process(0).pool
        with capturedLogs() as events:
            for _ in range(5):
                pool.failed(pool.pick())  # type: ignore[arg-type]
        self.assertEqual([event["log_level"].name for event in events], ["warn"])

    def test_name_comes_later(self) -> None:
        self.backend("web.test:80")
        self.hear(ok=False)
        self.assertEqual(self.resolve("10.0.0.1", "10.0.0.2"), [MemberState.DOWN, MemberState.UP])
        self.hear(ok=True)
        self.assertEqual(self.resolve("10.0.0.1"), [MemberState.UP])
        for ok in (False, True):  # healthy again before lookup
            self.hear(ok=ok, key="web.test:80 10.0.0.3:80")
        self.assertEqual(self.resolve("10.0.0.3"), [MemberState.UP])
        held = list[int]()
        for count in (900, 1000, 2000):  # never
            for number in range(count):
                self.hear(ok=False, key=f"web.test:80 {number}")
            held.append(held_by(self.process.upstream))
        self.assertLess(held[0], held[1])
        self.assertEqual(held[1], held[2])

    def test_freed(self) -> None:
        """Nothing keeps one that is not used any longer, so that its servers' health is that of the rules that follow."""
        upstream = Upstream(Backend("b", servers("127.0.0.1:80")), Clock(), Refusal.CLOSE)
        upstream.pool.retire()
        pool = weakref.ref(upstream.pool)
        gc.disable()
        self.addCleanup(gc.enable)
        del upstream
        self.assertIsNone(pool())

    def test_when_servers_are_started(self) -> None:
        """For the first client, every 30 s while one waits in any process, and once an operator's hold has ended."""
        clock, asked = Clock(), list[str]()
        starter = ServerStarter(clock, asked.append)
        for process, count in ((1, 1), (2, 1)):
            starter.report("b", waiting=True, process=process)
            self.assertEqual(len(asked), count)
        starter.process_ended(1)
        clock.advance(30)
        self.assertEqual((asked, starter.as_json()), (["b"] * 2, {"b": 30}))
        starter.hold(["b"])
        clock.advance(7)
        starter.report("b", waiting=True, process=2)
        self.assertEqual((len(asked), starter.as_json()), (3, {"b": 30}))
        starter.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
