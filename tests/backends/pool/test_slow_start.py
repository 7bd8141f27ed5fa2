from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import Watched, servers
from txmux.backends.pool.member import Member, ResolvedAddress
from txmux.backends.pool.pool import BackendPool
from txmux.backends.pool.server_health import BackendHealth, MemberState
from txmux.rules.model import Backend, Balance, Check, Server
from txmux.rules.reading.endpoints import server
from txmux.wire import codec

TWO = servers("10.0.0.1:80", "10.0.0.2:80")


class Starting(Watched):
    """Two servers for a while, of which the second one then comes back."""

    def __init__(self, *of: Server, balance: Balance = "round-robin", **options: Any) -> None:
        super().__init__(*of, balance=balance, slow_start=30.0, check=Check("tcp"), **options)
        self.clock.advance(100)

    def bring_back(self, *members: Member) -> None:
        for member in members:
            for ok in (False, False, False, True, True):
                self.pool.check_result(member, ok=ok, why="")

    def shares(self, count: int = 1000, *, held: bool = False) -> list[float]:
        """Choose for so many clients, each of another address; return the share of each server."""
        picked = []
        for number in range(count):
            member = self.pick(client=f"10.1.{number // 250}.{number % 250}")
            picked.append(member)
            if not held:
                self.pool.abandoned(member)
        for member in picked if held else ():
            self.pool.abandoned(member)
        found = Counter(member.target.text for member in picked)
        return [found[member.target.text] / count for member in self.members]


class SlowStartTests(SynchronousTestCase):
    def test_share_grows_evenly_whatever_chooses(self) -> None:
        methods: list[tuple[Balance, bool]] = [
            ("round-robin", False), ("least-connections", True), ("random", True),
            ("source-hash", False),
        ]  # fmt: skip
        for balance, held in methods:
            pool = Starting(balance=balance)
            self.assertLess(abs(pool.shares(held=held)[1] - 0.5), 0.05)
            pool.bring_back(pool.members[1])
            for seconds, part in ((0, 0.01), (7.5, 0.25), (7.5, 0.5), (7.5, 0.75), (7.5, 1)):
                pool.clock.advance(seconds)
                self.assertAlmostEqual(pool.pool.ramp(pool.members[1]), part)
                expected = part / (1 + part)
                share = pool.shares(held=held)[1]
                self.assertLess(abs(share - expected), 0.05, f"{balance} {part}")

    def test_weights_are_kept(self) -> None:
        pool = Starting(*servers("10.0.0.1:80"), *servers("10.0.0.2:80", weight=3))
        pool.bring_back(pool.members[1])
        pool.clock.advance(10)
        self.assertLess(abs(pool.shares()[1] - 0.5), 0.01)
        self.assertEqual(pool.members[1].full_weight, 3)
        plain = Watched(check=Check("tcp"))  # without it, all at once
        plain.clock.advance(100)
        for ok in (False, False, False, True, True):  # without it a server has its share at once
            plain.pool.check_result(plain.members[1], ok=ok, why="")
        self.assertEqual([member.weight for member in plain.members], [1, 1])
        pool = Starting(*TWO, balance="least-connections")
        held = [pool.pick() for _ in range(20)]
        pool.bring_back(pool.members[1])  # quick connections do not all go to the one without any
        for member in held:
            if member is pool.members[1]:
                pool.pool.abandoned(member)
        self.assertEqual(pool.shares()[1], 0)
        pool.clock.advance(15)
        self.assertEqual(pool.shares()[1], 1)

    def test_none_is_refused_when_all_start(self) -> None:
        for balance in ("round-robin", "least-connections", "random", "source-hash", "first"):
            pool = Starting(balance=balance)
            pool.bring_back(*pool.members)
            share = pool.shares(held=True)[1]
            self.assertLess(abs(share - (0 if balance == "first" else 0.5)), 0.1)
        alone = Starting(*TWO[:1])
        alone.bring_back(*alone.members)
        self.assertEqual(alone.shares(), [1])

    @given(st.lists(st.floats(0, 29), min_size=1, max_size=4))
    def test_hash_moves_clients_only_to_the_server_that_starts(self, moments: list[float]) -> None:
        pool = Starting(balance="source-hash")
        pool.bring_back(pool.members[1])
        start, before = pool.clock.seconds(), set[int]()
        for moment in sorted(moments):
            pool.clock.advance(max(0, start + moment - pool.clock.seconds()))
            now = {n for n in range(60) if pool.pick(client=str(n)) is pool.members[1]}
            self.assertLessEqual(before, now)
            before = now

    def test_ejected_and_drained_servers_start_again(self) -> None:
        pool = Starting()
        second = pool.members[1]
        pool.take_out(second)
        pool.clock.advance(10)
        while second.state is not MemberState.PROBING:
            pool.pick()
        pool.pool.connected(second)
        self.assertEqual(pool.pool.ramp(second), 0.01)
        pool.clock.advance(30)
        self.assertEqual(pool.pool.ramp(second), 1)
        health = pool.pool.backend_health
        health.override({second.server.text: (MemberState.DRAIN, None)})
        health.override({second.server.text: (None, None)})
        self.assertEqual(pool.pool.ramp(second), 0.01)

    def ramps(self, pool: BackendPool) -> list[float]:
        return [pool.ramp(member) for member in pool.members]

    def reloaded(self, pool: Starting, *of: Server) -> Starting:
        """Serve other rules, of which a pool is made before that one retires."""
        made = Starting(*of, backend_health=pool.pool.backend_health)
        made.clock.advance(pool.clock.seconds() - made.clock.seconds())
        pool.pool.retire()
        made.pool.commit()
        return made

    def test_reload_starts_new_servers_alone(self) -> None:
        pool = Starting()
        pool.bring_back(pool.members[0])
        pool.clock.advance(15)
        third, down = server("10.0.0.3:80"), server("10.0.0.2:80 down")
        pool = self.reloaded(pool, *TWO, third)
        self.assertEqual(self.ramps(pool.pool), [0.5, 1, 0.01])
        pool.clock.advance(30)
        pool = self.reloaded(pool, TWO[0], down)
        self.assertEqual(self.ramps(pool.pool), [1, 1])
        pool = self.reloaded(pool, *TWO, third)
        self.assertEqual(self.ramps(pool.pool), [1, 0.01, 0.01])
        pool = Starting()  # rules that are not taken change nothing
        Starting(*TWO, server("10.0.0.3:80"), backend_health=pool.pool.backend_health)
        self.assertEqual(self.ramps(pool.pool), [1, 1])

    def test_new_address_of_a_name_starts(self) -> None:
        name = server("name.test:80")
        backend = Backend("b", (name,), slow_start=30.0)
        now = 100.0
        pool = BackendPool(backend, lambda: now)
        first, second = (ResolvedAddress(f"10.0.0.{n}", 80) for n in (1, 2))
        pool.set_addresses(name, [first])
        self.assertEqual(self.ramps(pool), [1])
        pool.set_addresses(name, [first, second])
        self.assertEqual(self.ramps(pool), [1, 0.01])
        now += 60
        self.assertEqual(self.ramps(pool), [1, 1])
        pool.set_addresses(name, [second])
        pool.set_addresses(name, [first, second])
        ramps = {member.target.host: pool.ramp(member) for member in pool.members}
        self.assertEqual([*ramps.items()], [("10.0.0.2", 1), ("10.0.0.1", 0.01)])

    def test_another_process_goes_on_from_there(self) -> None:
        pool = Starting()
        pool.bring_back(pool.members[1])
        pool.clock.advance(15)
        health, now = BackendHealth(), 7.0
        for member in pool.members:
            its = codec.write(member.health, codec.Origin(pool.clock.seconds()))
            health.restore((member.server.text, member.target.text), its, now)
        other = BackendPool(pool.pool.backend, lambda: now, backend_health=health)
        self.assertEqual(self.ramps(other), [1, 0.5])
