"""Certificates that machines share through Redis."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, succeed
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.interop.acme import ONE, OTHER, RENEW, SITE, AcmeCase, shown_to
from tests.interop.children import Child, InteropTestCase, eventually, output_of
from tests.support.ports import free_port
from txmux.features.acme.renewal import Certificates
from txmux.features.acme.shared import SharedCertificates
from txmux.features.sharing.store import Store
from txmux.rules.model import Route, Rules, Settings, TlsSettings

pytestmark = pytest.mark.by_turns


def _redis_with_password(test: InteropTestCase) -> tuple[int, Path]:
    """Start a Redis; return its port, and the file with its password."""
    password, port = test.make_folder() / "password", free_port()
    password.write_text("secret\n")
    password.chmod(0o600)
    options = ("--port", str(port), "--requirepass", "secret", "--save", "")
    test.own(Child("redis-server", *options)).wait_for("[Rr]eady to accept connections")
    return port, password


class SharedTests(AcmeCase):
    def test_shared(self) -> None:
        """One asks, and the other reads what it got; each answers the challenges of the other, and Redis has no key as it is."""
        port, password = _redis_with_password(self)
        shared = f"shared_limits = redis://127.0.0.1:{port} password={password}\n"
        rules = (
            f"{SITE}[route address]\nmatch = tls\nterminate_tls = acme 127.0.0.1\nbackend = close\n"
        )
        self.start(shared, rules)
        self.wait_for_certificates(ONE, OTHER, "")
        issued = self.pebble.issued
        self.assertEqual(issued, 3)
        served = self.pebble.challenged
        self.acme = self.make_folder() / "acme"
        other = self.start(shared, rules.replace("{port}", "0"))
        for name in (ONE, OTHER, ""):
            eventually(
                lambda name=name: shown_to(other.port, name) == shown_to(served, name),  # type: ignore[misc]
                "both show the same certificate",
            )
        self.assertEqual(self.pebble.issued, issued)
        # The authority looks at the first machine, while the second one asks.
        self.assertIn("renewed", self.txmux(*RENEW, ONE))
        self.assertEqual(self.pebble.issued, issued + 1)
        eventually(
            lambda: shown_to(other.port, ONE) == shown_to(served, ONE), "the first one has got it"
        )
        command = ("redis-cli", "-p", str(port), "-a", "secret", "--no-auth-warning")
        keys = output_of(*command, "KEYS", "*").decode().split()
        self.assertIn(f"txmux:acme:certificate:{ONE}", keys)
        self.assertNotIn("txmux:acme:lock", keys)
        found = output_of(*command, "GET", f"txmux:acme:certificate:{ONE}")
        self.assertNotIn(b"PRIVATE KEY", b64decode(found.strip().strip(b'"')))


class SealedTests(TestCase, InteropTestCase):
    """What somebody can do who may write to the Redis, and does not know its password."""

    async def test_challenges(self) -> None:
        """Listeners answer a challenge if it is sealed, new, and of the machine that has the lock."""
        port, password = _redis_with_password(self)
        store, now = Store("redis", host="127.0.0.1", port=port, password=password), time.time()
        clocks = {"own": now, "other": now}
        own, other = (
            SharedCertificates(reactor, store, partial(clocks.__getitem__, name)) for name in clocks
        )
        for one in (own, other):
            self.addCleanup(one.stop)
            while not one.is_up:
                await deferLater(reactor, 0.01)
        digest = {ONE: "00" * 32}
        self.assertTrue(await other.lock())
        self.assertFalse(await own.lock())
        await other.show(digest)
        self.assertEqual((await own.poll())[0], digest)
        for away in (200, -100):
            clocks["own"] = now + away
            self.assertEqual((await own.poll())[0], digest)
        with capturedLogs() as events:
            for away in (400, -200):
                clocks["own"] = now + away
                self.assertEqual((await own.poll())[0], {})
        (line,) = (formatEvent(event) for event in events)
        self.assertIn("its time is 400 s before this machine's: set the clocks", line)
        clocks["own"] = now
        redis: Any = own._client.redis
        sealed = await redis.execute("GET", "txmux:acme:challenges")
        plain = json.dumps([other._machine, digest])
        await other.put("https://a.example/dir", ONE, plain.encode(), 60)
        as_certificate = await redis.execute("GET", f"txmux:acme:certificate:{ONE}")
        for said in (plain, as_certificate, sealed[:-8], "", "[]"):
            await redis.execute("SET", "txmux:acme:challenges", said)
            self.assertEqual((await own.poll())[0], {})
        await redis.execute("SET", "txmux:acme:challenges", sealed)
        self.assertEqual((await other.poll())[0], {})
        await other.unlock()
        self.assertEqual((await own.poll())[0], {})
        self.assertTrue(own.source.state().up)

    async def test_lock(self) -> None:
        """A lock that stays, which somebody may have written, is reported after half an hour."""
        port, password = _redis_with_password(self)
        end = TlsSettings((self.folder / f"{ONE}.pem",), managed=(ONE,))
        settings = Settings(
            more={
                "acme": "https://a.example/dir",
                "acme_folder": self.folder,
                "shared_limits": Store("redis", host="127.0.0.1", port=port, password=password),
            }
        )
        now = [time.time()]
        made = Certificates(reactor, lambda _: succeed(None), lambda: None, now=lambda: now[0])
        route = Route("site", (), None, terminate_tls=end)
        made.commit(Rules(Path("rules.ini"), settings, (), (route,)))
        self.addCleanup(made.stop)
        shared: Any = made._shared
        while not shared.is_up:
            await deferLater(reactor, 0.01)
        await shared._ask("SET", "txmux:acme:lock", "x")
        for count in (1, 1, 2):
            made.look()
            await DeferredList([*made._busy.values()])
            self.assertEqual(len([*made.troubles()]), count)
            now[0] += 1000
        self.assertIn("delete the key 'txmux:acme:lock'", next(made.troubles()).do)
