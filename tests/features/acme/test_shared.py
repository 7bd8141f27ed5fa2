"""The lock for orders, with a Redis that gives it."""

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.features.acme.shared import SharedCertificates
from txmux.rules.reading.parser import load


class SharedTest(SynchronousTestCase):
    """What other machines get, and what they say, also while Redis says nothing of use."""

    def shared(self, answer: object) -> tuple[SharedCertificates, list[object]]:
        store = SimpleNamespace(text="", connect=lambda *_: SimpleNamespace(redis=None))
        self.clock, asked = Clock(), list[object]()
        self.clock.advance(1000)
        shared = SharedCertificates(self.clock, store, lambda: 0.0)

        async def ask(*words: object, **_: object) -> object:
            asked.append(words[0])
            return answer

        self.patch(shared, "_ask", ask)
        return shared, asked

    def result_of(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def test_orders_of_one_machine_share_the_lock_for_two_minutes(self) -> None:
        shared, asked = self.shared(1)
        for seconds, is_locked in ((0, True), (120, True), (0.1, False)):
            self.clock.advance(seconds)
            self.assertEqual(self.result_of(shared.lock()), is_locked)
        for released in (2, 3):
            self.result_of(shared.unlock())
            self.assertEqual(len(asked), released)
        self.assertTrue(self.result_of(shared.lock()))

    def test_nothing_is_shared(self) -> None:
        """Certificates and challenges are sealed by a key that is there once Redis is connected."""
        shared, asked = self.shared(None)
        self.result_of(shared.put("https://ca.test/", "a.test", b"pem", 60.0))
        self.assertEqual(asked, [])
        self.result_of(shared.show({"token": "answer"}))
        self.assertEqual(asked, ["DEL"])
        self.assertIsNone(self.result_of(shared.certificate("https://ca.test/", "a.test")))

    def test_answers_of_another_shape(self) -> None:
        for answer in (None, b"x", [], [None, None], [None] * 4):
            with self.subTest(answer=answer):
                self.assertEqual(self.result_of(self.shared(answer)[0].poll()), ({}, False))

    def test_empty_password(self) -> None:
        """The key of shared certificates is derived from it; an empty one would seal them with a key that all know."""
        folder = make_folder(self)
        (path := folder / "password").write_bytes(b"\n")
        rules = folder / "rules.ini"
        limits = f"shared_limits = redis://127.0.0.1:1 password={path}"
        rules.write_text(f"[txmux]\n{limits}\n[listen x]\nendpoint = :443\n")
        store = load(rules).settings.more["shared_limits"]
        shared = SharedCertificates(Clock(), store, lambda: 0.0)
        self.assertFalse(shared.is_up)
        self.assertIn(f"'{path}' does not hold one line", shared.source.why)
        shared.stop()
