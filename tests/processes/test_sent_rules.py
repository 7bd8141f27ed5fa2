"""What is sent to workers of rules: what is different, or all to one that has others."""

from base64 import b64decode
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from txmux.access.across_processes import LimitsLayout
from txmux.detection.ranked import finish
from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.processes.supervisor.sent_rules import SentRules
from txmux.rules.difference import Difference, digest
from txmux.rules.model import Rules
from txmux.rules.packing import unpack_in_steps
from txmux.rules.reading.parser import parse


def rules_of(*matches: str) -> Rules:
    text = "# a comment\n[listen p]\nendpoint = 127.0.0.1:1\n"
    for number, match in enumerate(matches):
        text += f"[route r{number}]\n# another comment\nmatch = {match}\nbackend = close\n"
    return parse(text, "x.ini")


class _Worker:
    """The supervisor's side of a worker that answers as it is told."""

    pid = 7

    def __init__(self, version: int, *answers: str) -> None:
        self.version = version
        self._answers = [*answers]
        self.asked: list[dict[str, Any]] = []

    def ask_to_prepare(self, *_: object, **values: Any) -> Deferred[bool]:
        self.asked.append(values)
        return succeed(self._answers.pop(0) == "yes")


class SentRulesTest(TestCase):
    async def sent(self, worker: Any, old: Rules, new: Rules) -> list[object]:
        await SentRules().prepare((old, 3), LimitsLayout(5), worker, dict, new, 4)
        self.assertEqual({one["digest"] for one in worker.asked}, {digest(new)})
        return [
            finish(unpack_in_steps(b64decode(one["rules"]), old)) if one["rules"] else None
            for one in worker.asked
        ]

    async def test_difference(self) -> None:
        old, new = rules_of("ssh", "tls"), rules_of("ssh", "http")
        worker = _Worker(3, "yes")
        [found] = await self.sent(worker, old, new)
        assert isinstance(found, Difference)
        self.assertEqual([one.start for one in found.routes], [1])
        self.assertEqual(worker.asked[0]["base"], 3)
        self.assertNotIn(b"comment", b64decode(worker.asked[0]["rules"]))
        # Of the same rules, nothing is sent.
        self.assertEqual(await self.sent(_Worker(3, "yes"), old, old), [None])
        # A worker with other rules gets all.
        for worker, count in ((_Worker(2, "yes"), 1), (_Worker(3, "no", "yes"), 2)):
            found = (await self.sent(worker, old, new))[-1]
            assert isinstance(found, Rules)
            self.assertEqual(found.files.texts, {})
            self.assertEqual([one.name for one in found.routes], ["r0", "r1"])
            self.assertEqual((len(worker.asked), worker.asked[-1]["base"]), (count, 0))
        with self.assertRaises(ChannelError):
            await self.sent(_Worker(3, "no", "no"), old, new)
        # All is sent where so much has changed that it is less work.
        old = rules_of(*["ssh", "tls"] * 250)
        new = rules_of(*["ssh", "http"] * 250)
        [found] = await self.sent(_Worker(3, "yes"), old, new)
        self.assertIsInstance(found, Rules)

    async def test_another_process(self) -> None:
        """One that has taken the worker's place while rules were packed is asked for nothing: it does not serve yet."""
        worker: Any = _Worker(3)
        old, new = (rules_of("ssh"), 3), (rules_of("tls"), 4)
        asking = SentRules().prepare(old, LimitsLayout(5), worker, dict, *new)
        prepared = Deferred.fromCoroutine(asking)
        worker.pid = 0
        with self.assertRaises(PeerGoneError):
            await prepared
        self.assertEqual(worker.asked, [])

    def test_places_are_added_to_messages_of_workers(self) -> None:
        rules = rules_of("ssh", "tls")
        for told, located in (
            ("worker 1: x.ini: [route r1] match: wrong", "worker 1: x.ini:10: [route r1] match: wrong"),
            ("worker 1: [route r0] match: no\n[listen p] endpoint: no", "worker 1: x.ini:6: [route r0] match: no\nx.ini:3: [listen p] endpoint: no"),
            ("x.ini:7: [route r0] match: no", "x.ini:7: [route r0] match: no"),
            ("[route gone] match: no", "[route gone] match: no"),
        ):  # fmt: skip
            self.assertEqual(rules.locate(told), located)
        several = parse("[listen p]\nendpoint = :1\n    127.0.0.1:2\n", "x.ini")
        told = "[listen p] endpoint: cannot listen at 127.0.0.1:2: no"
        self.assertEqual(several.locate(told), f"x.ini:3: {told}")
