import json
import math
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants, set_wall_clock
from tests.support.held import held_by
from txmux.access import bans as module
from txmux.access.bans import Ban, BanError, Banned, Bans, Change, banned_network, rows_of
from txmux.rules.model import IPNetwork
from txmux.wire import codec
from txmux.wire.codec import Origin

_ADDRESSES = ("192.0.2.7", "192.0.2.8", "192.0.3.7", "2001:db8::7", "2001:db8:1::7")
_NETWORKS = "192.0.2.7", "192.0.2.0/24", "192.0.2.0/23", "2001:db8::7", "2001:db8::/32"
_SOME = [*map(ip_network, _NETWORKS)]
_UNTIL = (None, 3.0, 7.0, 12.0, math.inf)
_ONE, _MANY = ip_network("192.0.2.7"), ip_network("198.51.100.0/24")


def banning(network: IPNetwork, until: float = math.inf) -> Change:
    return network, Ban(network, 1.0, until, "")


class BannedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.banned = Banned(self.clock.seconds)

    def change(self, *changes: Change) -> bool:
        """Tell of changes as another process does, and give whether somebody is banned who was not."""
        return self.banned.change(json.loads(json.dumps(rows_of(changes))))

    def test_ban_expires_at_its_time(self) -> None:
        self.assertTrue(self.change(banning(_ONE, 10.0), banning(_MANY)))
        one, other = ip_address("192.0.2.7"), ip_address("198.51.100.9")
        self.assertIn(one, self.banned)
        self.clock.advance(10)
        self.assertNotIn(one, self.banned)
        self.assertIn(other, self.banned)
        self.assertTrue(self.banned.any)

    def test_change_reports_new_bans_alone(self) -> None:
        self.assertFalse(self.change())
        self.assertTrue(self.change(banning(_ONE, 5.0)))
        self.assertFalse(self.change(banning(_ONE, 9.0)))
        self.clock.advance(9)
        self.assertTrue(self.change(banning(_ONE, 20.0)))
        self.assertFalse(self.change(banning(_MANY, 9.0)))  # over already
        self.assertFalse(self.change((_ONE, None), (_MANY, None), (_ONE, None)))
        self.assertFalse(self.banned.any)
        self.assertNotIn(ip_address("192.0.2.7"), self.banned)

    @given(st.lists(st.tuples(st.sampled_from(_SOME), st.sampled_from(_UNTIL))))
    def test_last_change_of_any_holds(self, told: list[tuple[IPNetwork, float | None]]) -> None:
        bans = Bans()
        self.banned = Banned(self.clock.seconds)
        later = Banned(self.clock.seconds)
        for network, until in told:
            change = (network, None) if until is None else banning(network, until)
            self.change(*bans.change([change]))
        later.change(rows_of((ban.network, ban) for ban in bans))
        left = [net for net, until in dict(told).items() if until and until > self.clock.seconds()]
        for address in map(ip_address, _ADDRESSES):
            expected = any(address in net for net in left)
            self.assertEqual((address in self.banned, address in later), (expected, expected))


class BansTests(SynchronousTestCase):
    def test_state_sends_all_and_then_changes(self) -> None:
        """Another process gets what has passed and what is left, since its clock may be another one."""
        bans, other = Bans([Ban(_ONE, 1.0, 9.0, "scans"), Ban(_MANY, 2.0)]), Bans()
        whole = json.loads(json.dumps(bans.state(4.0)))
        self.assertEqual(len(other.restore(whole, 104.0)), 2)
        self.assertEqual([*other], [Ban(_ONE, 101.0, 109.0, "scans"), Ban(_MANY, 102.0)])
        one = {"network": "192.0.2.7", "age": 3.0, "left": 5.0, "reason": "scans"}
        many = {"network": "198.51.100.0/24", "age": 2.0, "left": None, "reason": ""}
        self.assertEqual(whole["all"], [one, many])
        bans.change([(_ONE, None), banning(_SOME[3])])
        changes = json.loads(json.dumps(bans.state(5.0, again=True)))
        self.assertEqual((changes["gone"], len(changes["changed"])), (["192.0.2.7"], 1))
        self.assertEqual(len(other.restore(changes, 105.0)), 2)
        self.assertEqual([*other], [Ban(_MANY, 102.0), Ban(_SOME[3], 101.0)])

    def test_people_see_the_time_of_day_and_other_states_are_refused(self) -> None:
        set_wall_clock(self, 1_000_000.0)
        shown = Ban(_ONE, 40.0, 160.0, "scans").as_json(100.0)
        self.assertEqual((shown["since"], shown["until"]), (999_940.0, 1_000_060.0))
        self.assertIsNone(Ban(_MANY, 40.0).as_json(100.0)["until"])
        whole = {"network": "192.0.2.7", "age": 1.0, "left": 2.0}
        self.assertEqual(codec.read(Ban, whole, Origin(10.0)), Ban(_ONE, 9.0, 12.0))
        for name in whole:
            lacking = {key: value for key, value in whole.items() if key != name}
            self.assertRaises(KeyError, codec.read, Ban, lacking)
        for wrong in ({"age": "x"}, {"left": math.inf}, {"network": "x"}):
            self.assertRaises(ValueError, codec.read, Ban, {**whole, **wrong})

    def test_what_replaces_bans(self) -> None:
        bans = Bans([Ban(_ONE, 1.0)])
        self.assertEqual(bans.restore({}, 5.0), [])
        made = bans.restore(Bans([Ban(_MANY, 1.0)]).state(5.0), 5.0)
        self.assertEqual(made, [(_ONE, None), (_MANY, Ban(_MANY, 1.0))])
        bans = Bans()
        self.assertEqual(len(bans.change([banning(_ONE, 9.0), banning(_ONE, 5.0)])), 2)
        self.assertEqual(bans.change([banning(_ONE, 5.0), (_MANY, None)]), [])
        self.assertEqual(([ban.until for ban in bans], bans.at(5.0)), ([5.0], []))
        self.assertEqual((bans.change([(_ONE, None)]), len(bans)), ([(_ONE, None)], 0))

    def test_expires_in_portions_and_changes_of_a_full_list(self) -> None:
        bans = Bans()
        for until in range(5000):
            bans.change([banning(_ONE, float(until))])
            if not until % 100:
                self.assertLessEqual(held_by(bans), 10_000)
        self.assertEqual((bans.expire(4998.0), bans.expire(4999.0)), ([], [(_ONE, None)]))
        many = [ip_network(number) for number in range(2500)]
        bans.change([*(banning(network, 7.0) for network in many), banning(_MANY)])
        found: list[Change] = []
        while gone := bans.expire(7.0):
            self.assertLessEqual(len(gone), 1000)
            found += gone
        self.assertEqual(found, [(network, None) for network in many])
        self.assertEqual([ban.network for ban in bans], [_MANY])
        change_constants(self, module, _MOST=1)
        bans = Bans([Ban(_ONE, 1.0)])

        async def change(changes: Sequence[Change]) -> list[str]:
            bans.change(changes)
            return []

        service = module.ServiceBans(lambda: bans, change, Clock().seconds)
        changes = [banning(_ONE, 9.0), (_SOME[3], None), banning(_MANY)]
        run = Deferred.fromCoroutine
        left_out = self.successResultOf(run(service.merge(changes)))
        self.assertEqual((left_out, [*bans]), ([_MANY], [Ban(_ONE, 1.0, 9.0)]))
        self.failureResultOf(run(service.add(Ban(_MANY, 1.0))), BanError)
        self.successResultOf(run(service.add(Ban(_ONE, 2.0))))
        self.assertEqual([*bans], [Ban(_ONE, 2.0)])
        for network, why in (
            ("198.51.100.0/24", "198.51.100.0/24 is not banned"),
            ("198.51.100.9", "198.51.100.9 is not banned; 198.51.100.0/24 is: unban that"),
        ):
            failed = self.failureResultOf(run(service.lift(ip_network(network))), BanError)
            self.assertEqual(failed.getErrorMessage(), why)
            bans.change([banning(_MANY)])
        lifted = self.successResultOf(run(service.lift(_MANY)))
        self.assertEqual(lifted, "198.51.100.0/24 is no longer banned")

    def test_network_around_another_and_that_of_a_mapped_address(self) -> None:
        bans = Bans([Ban(_MANY, 1.0), Ban(ip_network("198.51.0.0/16"), 1.0)])
        self.assertEqual(bans.wider(ip_network("198.51.100.7")), _MANY)
        self.assertIsNone(bans.wider(ip_network("198.51.0.0/16")))
        self.assertIsNone(bans.wider(ip_network("2001:db8::")))
        for text, network in (
            ("::ffff:192.0.2.7", "192.0.2.7/32"), ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::fffe:0:0/95", "::fffe:0:0/95"), (" 198.51.100.0/24", "198.51.100.0/24"),
            ("fe80::1%any thing", "fe80::1/128"),
        ):  # fmt: skip
            self.assertEqual(str(banned_network(text)), network)
        for wrong in ("x", "192.0.2.7/24", ""):
            self.assertRaises(ValueError, banned_network, wrong)
