"""When an authority is asked for a certificate, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.trial.unittest import TestCase

from tests.interop.acme import ONE, OTHER, Front
from tests.interop.children import InteropTestCase
from tests.interop.pebble import Pebble
from tests.support.ports import free_port
from txmux.features.acme.folder import make_first
from txmux.features.acme.reading import acme_file
from txmux.features.acme.renewal import Certificates
from txmux.rules.model import Route, Rules, Settings, TlsSettings

pytestmark = pytest.mark.by_turns


class ScheduleTests(TestCase, InteropTestCase):
    """When an authority is asked, by a clock of the test's own; it takes every name for ours."""

    pebble: ClassVar[Pebble]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.pebble = cls.share(Pebble(cls.folder, valid=True))

    def setUp(self) -> None:
        super().setUp()
        self.now = time.time()
        self.path = self.make_folder() / "acme"

    def certificates(self, directory: str = "", *names: str, profile: str = "") -> Certificates:
        settings = Settings(
            more={
                "acme": directory or self.pebble.directory,
                "acme_terms": True,
                "acme_ca": self.pebble.ca,
                "acme_folder": self.path,
                "acme_profile": profile,
            }
        )
        names = names or (ONE,)
        end = TlsSettings(tuple(acme_file(self.path, name) for name in names), managed=names)
        rules = Rules(
            Path("rules.ini"), settings, (), (Route("site", (), None, terminate_tls=end),)
        )
        make_first(rules, None, self.now)
        self.announced: list[Mapping[str, str]] = []

        def announce(challenges: Mapping[str, str]) -> Deferred[None]:
            self.announced.append(challenges)
            return succeed(None)

        made = Certificates(reactor, announce, lambda: None, now=lambda: self.now)
        made.commit(rules)
        return made

    async def tick(self, certificates: Certificates) -> None:
        """Do what is due, until that has been done."""
        certificates.look()
        await DeferredList([*certificates._busy.values()])

    async def run_for(self, certificates: Certificates, seconds: float) -> list[float]:
        """Let time pass, minute by minute, and return when the authority was asked in vain."""
        failed: list[float] = []
        until, before = self.now + seconds, 0
        while self.now < until:
            await self.tick(certificates)
            failures = sum(one.failures for one in certificates._renewals.values())
            count = failures + sum(its.unreached for its in certificates._accounts.values())
            if count > before:
                failed.append(self.now)
            before, self.now = count, self.now + 60
        return failed

    async def why(self, certificates: Certificates) -> str:
        """Ask for a certificate in vain, and return why."""
        asked = certificates.renew(ONE)
        assert asked is not None
        asked.addErrback(lambda _: None)
        await self.tick(certificates)
        return next(certificates.troubles()).cause

    def serial(self) -> int:
        return x509.load_pem_x509_certificate(acme_file(self.path, ONE).read_bytes()).serial_number

    async def test_third(self) -> None:
        """It is renewed when a third of its time is left, and not before; a restart asks for nothing."""
        certificates = self.certificates()
        await self.tick(certificates)
        self.assertEqual(set(self.announced[0]), {ONE})
        self.assertEqual(self.announced[-1], {})
        first = self.serial()
        (row,) = certificates.certificates()
        shown = x509.load_pem_x509_certificate(acme_file(self.path, ONE).read_bytes())
        lifetime = (shown.not_valid_after_utc - shown.not_valid_before_utc).total_seconds()
        self.assertAlmostEqual(row["not_after"] - row["next_renewal"], lifetime / 3, places=1)
        certificates = self.certificates()
        self.now = row["next_renewal"] - 60
        await self.tick(certificates)
        self.assertEqual(self.serial(), first)
        self.now += 61
        await self.tick(certificates)
        self.assertNotEqual(self.serial(), first)
        self.assertEqual([*certificates.troubles()], [])

    async def test_day_away(self) -> None:
        """While the authority is away for a day, it is asked more and more seldom, and once it is back, gives its certificates."""
        port = free_port()
        certificates = self.certificates(f"https://127.0.0.1:{port}/dir", ONE, OTHER)
        asked = await self.run_for(certificates, 86400)
        self.assertLess(len(asked), 40)
        self.assertLessEqual(max(b - a for a, b in pairwise(asked)), 3660)
        self.assertIn("cannot be reached", " ".join(item.cause for item in certificates.troubles()))
        self.assertEqual(certificates.seconds_left(), {ONE: 0.0, OTHER: 0.0})
        self.own(Pebble(self.make_folder(), port=port, valid=True, ca=self.pebble.authority))
        await self.run_for(certificates, 7200)
        self.assertEqual([*certificates.troubles()], [])
        self.assertGreater(min(certificates.seconds_left().values()), 86400)

    async def test_suggested(self) -> None:
        """It is renewed when the authority says so, as for one that is revoked; else at the usual time."""
        front = self.own(Front(self.pebble))
        certificates = self.certificates(f"{front.url}/dir")
        front.window = (self.now + 86400 * 700, self.now + 86400 * 701)
        await self.run_for(certificates, 600)
        first = self.serial()
        (row,) = certificates.certificates()
        self.assertTrue(front.window[0] <= row["next_renewal"] <= front.window[1])
        front.window = (self.now - 7200, self.now - 3600)
        asked = len(front.asked)
        await self.run_for(certificates, 6 * 3600 - 1200)
        self.assertEqual(self.serial(), first)
        self.assertEqual(len(front.asked), asked)
        await self.run_for(certificates, 1800)
        self.assertNotEqual(self.serial(), first)

    async def test_profile(self) -> None:
        """An authority that does not list it gives nothing; by one that it lists, another certificate takes the place of the one that is there."""
        front = self.own(Front(self.pebble))
        url = f"{front.url}/dir"
        await self.tick(self.certificates(url))
        first = self.serial()
        why = await self.why(self.certificates(url, profile="shortlived"))
        self.assertIn("its profiles do not include 'shortlived', but none", why)
        front.directory["meta"]["profiles"] = {"shortlived": "https://a.example/profiles"}
        self.now += 3600
        certificates = self.certificates(url, profile="shortlived")
        await self.tick(certificates)
        self.assertNotEqual(self.serial(), first)
        (row,) = certificates.certificates()
        self.assertEqual((row["authority"], row["profile"]), (url, "shortlived"))

    async def test_side_by_side(self) -> None:
        """Once the authority has answered, four names are asked for at a time, and listeners answer the challenges of all."""
        names = [f"{name}.example.com" for name in "abcdef"]
        certificates = self.certificates(self.pebble.directory, *names)
        for count in (1, 4, 1):
            certificates.look()
            self.assertEqual(len(certificates._busy), count)
            await self.tick(certificates)
        self.assertEqual([*certificates.troubles()], [])
        self.assertEqual(max(map(len, self.announced)), 4)
        self.assertEqual(self.announced[-1], {})

    async def test_limits(self) -> None:
        """An authority that wants to be left alone about a name is; the reason and how long it lasts outlive a restart."""
        front = self.own(Front(self.pebble))
        front.busy = True
        certificates = self.certificates(f"{front.url}/dir", ONE, OTHER)
        asked = await self.run_for(certificates, 7200)
        self.assertEqual(len(asked), 2)
        self.assertIn("rateLimited: too many orders", next(certificates.troubles()).cause)
        await self.run_for(certificates, 3600)
        self.assertEqual(front.asked.count("/busy"), 4)
        await self.run_for(self.certificates(f"{front.url}/dir"), 600)
        self.assertEqual(front.asked.count("/busy"), 4)

    async def test_refused(self) -> None:
        """Why there is no certificate is said in words, and no challenge is answered for a name that was not asked for."""
        front = self.own(Front(self.pebble))
        for offers, why in (
            ([], "does not offer the challenge tls-alpn-01, but none"),
            ([{"type": "dns-01", "url": f"{front.url}/x", "token": "QUFB" * 8}], ", but dns-01"),
            (
                [{"type": "tls-alpn-01", "url": f"{front.url}/x", "token": "QUFB" * 8}],
                "does not check www.example.com, but other.example",
            ),
        ):
            front.offers = offers
            certificates = self.certificates(f"{front.url}/dir")
            self.assertIn(why, await self.why(certificates))
            self.assertEqual(self.announced, [])
        front.is_down = True
        certificates = self.certificates(f"{front.url}/dir")
        self.assertIn("it answered 503 Service Unavailable", await self.why(certificates))
