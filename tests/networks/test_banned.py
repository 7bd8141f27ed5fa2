"""Tests of bans: what is kept of them, and who is banned."""

from __future__ import annotations

import json
import math
from ipaddress import ip_address, ip_network

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.networks.banned import Banned
from txmux.networks.bans import Ban, Bans, banned_network

_ONE, _MANY = ip_network("192.0.2.7"), ip_network("198.51.100.0/24")


class BannedTests(SynchronousTestCase):
    """Who is banned just now."""

    def test_time(self) -> None:
        """Each ban is over by itself at its time; one without lasts."""
        clock = Clock()
        banned = Banned(clock.seconds)
        self.assertTrue(banned.use({_ONE: 10.0, _MANY: math.inf}))
        one, other = ip_address("192.0.2.7"), ip_address("198.51.100.9")
        self.assertIn(one, banned)
        clock.advance(10)
        self.assertNotIn(one, banned)
        self.assertIn(other, banned)
        self.assertTrue(banned.any)

    def test_new(self) -> None:
        """It is told whether somebody is banned who was not, and not that somebody no longer is."""
        banned = Banned(Clock().seconds)
        self.assertFalse(banned.use({}))
        self.assertTrue(banned.use({_ONE: 5.0}))
        self.assertFalse(banned.use({_ONE: 9.0}))
        self.assertFalse(banned.use({}))
        self.assertFalse(banned.any)
        self.assertNotIn(ip_address("192.0.2.7"), banned)


class BansTests(SynchronousTestCase):
    """What is kept of bans."""

    def test_json(self) -> None:
        """Another process reads the same, whether a ban ends or not."""
        bans = Bans().with_ban(Ban(_ONE, 1.0, 9.0, "scans")).with_ban(Ban(_MANY, 2.0))
        told = json.loads(json.dumps(bans.as_json()))
        self.assertEqual(Bans.read(told), bans)
        self.assertEqual(told[0]["network"], "192.0.2.7")
        self.assertIsNone(told[1]["until"])

    def test_changes(self) -> None:
        """A new ban takes the place of the one of the same network; those that are over are left out."""
        bans = Bans().with_ban(Ban(_ONE, 1.0, 9.0)).with_ban(Ban(_ONE, 2.0, 5.0))
        self.assertEqual(bans.until(), {_ONE: 5.0})
        self.assertEqual(bans.at(5.0), Bans())
        self.assertEqual(bans.without(_MANY), bans)
        self.assertEqual(bans.without(_ONE), Bans())

    def test_networks(self) -> None:
        """An IPv4 address that is written as an IPv6 one is banned as what its clients come from."""
        self.assertEqual(banned_network("::ffff:192.0.2.7"), _ONE)
        self.assertEqual(banned_network(" 198.51.100.0/24"), _MANY)
        for wrong in ("x", "192.0.2.7/24", ""):
            self.assertRaises(ValueError, banned_network, wrong)
