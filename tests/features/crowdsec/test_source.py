import contextlib
import json
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

import txmux
from tests.admin.asking import LISTEN, AdminCase
from tests.serving.test_networks import LISTEN as WITH_SETTINGS
from tests.serving.test_networks import ServedNetworks
from tests.support.crowdsec import KEY, CrowdSecPlayed
from tests.support.kit import VirtualTime, change_constants, make_folder, reactor
from tests.support.supervised import SupervisedTestCase
from tests.test_errors import assert_harmless, refused
from txmux.access.bans import banned_network, written
from txmux.access.dynamic_networks import unpack
from txmux.errors import MuxError
from txmux.features.crowdsec import source as crowdsec
from txmux.features.crowdsec.source import CrowdSec, Decisions, DecisionsReader, seconds_in
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load

_DURATION = re.compile(r"\A-?([0-9]+(\.[0-9]+)?(h|m|s|ms|us|µs|ns))+\Z")


def decision(value: str, duration: str = "4h", **others: str) -> dict[str, Any]:
    return {
        "id": 7, "origin": "cscli", "type": "ban", "scope": "Range" if "/" in value else "Ip",
        "scenario": "manual 'ban' from 'x'", "value": value, "duration": duration, **others,
    }  # fmt: skip


def read(answer: Any, now: float) -> DecisionsReader:
    reader = DecisionsReader(now)
    reader.feed(json.dumps(answer).encode())
    reader.end()
    return reader


def _new(*decisions: Any) -> dict[str, Any]:
    return {"new": [*decisions], "deleted": None}


def _inside(inner: Any) -> Any:
    return st.lists(inner) | st.dictionaries(st.sampled_from(["new", "deleted", "type"]), inner)


class DecisionsTests(SynchronousTestCase):
    def banned(self, decisions: Decisions, now: float = 0.0) -> list[str]:
        return [*map(str, decisions.networks(now))]

    def test_first_answer_has_all_and_later_ones_change_it(self) -> None:
        decisions = Decisions()
        decisions.replace(read(_new(decision("192.0.2.1"), decision("10.0.0.0/8")), 0))
        self.assertEqual(self.banned(decisions), ["10.0.0.0/8", "192.0.2.1/32"])
        decisions.change(read({"new": None, "deleted": [decision("10.0.0.0/8", "-3s")]}, 1))
        decisions.change(read({"new": [decision("2001:db8::1")], "deleted": None}, 1))
        again = decision("192.0.2.1")
        decisions.change(read({"new": [again], "deleted": [again]}, 1))
        self.assertEqual(self.banned(decisions), ["192.0.2.1/32", "2001:db8::1/128"])
        decisions.replace(read({"new": None, "deleted": [again]}, 1))
        self.assertEqual(self.banned(decisions), [])

    def test_which_decisions_count(self) -> None:
        decisions = Decisions()
        odd: list[Any] = [
            decision("192.0.2.1", type="captcha"), decision("FR", scope="Country"), decision("x"),
            decision("192.0.2.2", "soon"), {"type": "ban"}, {"type": None, "scope": 5},
            decision("192.0.2.9/24"), decision("::ffff:198.51.100.1", scope="ip", type="BAN"),
        ]  # fmt: skip
        decisions.replace(read(_new(*odd), 0))
        self.assertEqual(self.banned(decisions), ["192.0.2.0/24", "198.51.100.1/32"])
        self.assertIn(ip_address("192.0.2.200"), decisions.networks(0))
        change_constants(self, crowdsec, _MOST_DECISIONS=1000)
        with self.assertRaisesRegex(ValueError, "more than 1000"):
            DecisionsReader(0).feed(json.dumps(_new(*[decision("192.0.2.1")] * 1001)).encode())
        full = _new(*(decision(f"10.0.{number >> 8}.{number & 255}") for number in range(1000)))
        decisions.replace(read(full, 0))
        decisions.change(read(full, 0))
        with self.assertRaisesRegex(MuxError, "more than 1000"):
            decisions.change(read(_new(decision("192.0.2.1")), 0))

    @given(st.recursive(st.none() | st.integers() | st.text(), _inside))
    def test_any_answer_bans_nobody_or_is_refused(self, told: Any) -> None:
        decisions = Decisions()
        decisions.replace(read(_new(decision("192.0.2.1")), 0))
        with contextlib.suppress(ValueError):
            decisions.change(read(told, 0))
        self.assertEqual(self.banned(decisions), ["192.0.2.1/32"])

    def test_durations_and_who_names_the_key(self) -> None:
        for text, seconds in (
            ("3h59m49.5s", 14389.5), ("1m", 60.0), ("250ms", 0.25), ("0s", 0.0), ("-1m2s", -62.0),
            ("3µs", 3e-6),
        ):  # fmt: skip
            self.assertAlmostEqual(seconds_in(text), seconds)
        naming = {
            str(path.relative_to(Path(txmux.__file__).parent))
            for path in Path(txmux.__file__).parent.rglob("*.py")
            if "crowdsec_key" in path.read_text()
        }
        self.assertEqual(naming, {"features/crowdsec/__init__.py", "rules/optional.py"})
        # It is named, so no other message says that it has to be.
        path = make_folder(self) / "rules.ini"
        path.write_text(_DENIED.replace("= k\n", "= none\n"))
        (said,) = str(self.assertRaises(RulesError, load, path)).splitlines()
        self.assertIn("[txmux] crowdsec_key: cannot read ", said)

    @given(st.one_of(st.text(), st.text("-1.hmsuµn", max_size=6), st.from_regex(_DURATION)))
    def test_anything_else_is_refused(self, text: str) -> None:
        try:
            seconds_in(text)
            is_read = True
        except ValueError:
            is_read = False
        self.assertEqual(is_read, bool(_DURATION.search(text)))

    def test_all(self) -> None:
        assert_harmless(self, "CrowdSec", _told)


class CrowdSecTests(TestCase):
    def setUp(self) -> None:
        self.played = CrowdSecPlayed(self)
        self.key: Path = make_folder(self) / "key"
        self.key.write_text(f"{KEY}\n")
        self.time = VirtualTime()
        self.asking = CrowdSec(self.time, self.played.url, self.key)

    async def look(self) -> list[str] | None:
        looking = Deferred.fromCoroutine(self.asking.fetch_changes())
        while not looking.called:
            await deferLater(reactor, 0)
            self.time.let_connect()
        packed = await looking
        return None if packed is None else [*map(str, unpack(packed))]

    async def problem(self) -> str:
        self.assertIsNone(await self.look())
        return self.asking.trouble

    async def test_asks_for_all_and_then_for_changes(self) -> None:
        self.played.new = [decision("192.0.2.1"), decision("10.0.0.0/8")]
        self.assertEqual(await self.look(), ["10.0.0.0/8", "192.0.2.1/32"])
        self.played.new = None
        self.assertIsNone(await self.look())
        self.played.deleted = [decision("10.0.0.0/8")]
        self.assertEqual(await self.look(), ["192.0.2.1/32"])
        self.assertEqual(self.played.asked, ["true", "false", "false"])

    async def test_keeps_bans_and_backs_off_while_away(self) -> None:
        """But for those that expire."""
        self.played.new = [decision("192.0.2.1"), decision("192.0.2.3", "1m")]
        self.assertEqual(await self.look(), ["192.0.2.1/32", "192.0.2.3/32"])
        await self.played.leave()
        for _ in range(4):
            self.assertIn("cannot connect", await self.problem())
        self.time.advance(60)
        self.assertEqual(await self.look(), ["192.0.2.1/32"])
        self.played.listen()
        self.played.new = [decision("192.0.2.2")]
        self.assertIsNone(await self.look())  # not asked yet, after three failures
        found = None
        for _ in range(4):
            found = found or await self.look()
        self.assertEqual((found, self.played.asked[:2]), (["192.0.2.2/32"], ["true", "true"]))

    def again(self) -> None:
        self.asking.trouble, self.asking.skip = "", 0

    async def test_waits_longer_after_each_failure_until_one_succeeds(self) -> None:
        waits = []
        for wrong in (*[500] * 6, None, 500, 500):
            self.again()
            self.played.wrong = wrong
            self.assertEqual(await self.look(), None if wrong else [])
            waits.append(self.asking.skip)
        self.assertEqual(waits, [0, 1, 3, 7, 7, 7, 0, 0, 1])

    async def test_bad_answer_lifts_no_ban(self) -> None:
        self.played.new = [decision("192.0.2.1")]
        self.assertEqual(await self.look(), ["192.0.2.1/32"])
        for wrong, expected in (
            (500, "it answers 500"), ("<html>", "it has '<' where [ or { is due"),
            ("[" * 100_000, "it is nested too deeply"), ("[]", "'new' is missing"), ("{}", "'new' is missing"),
            ('{"status": "maintenance"}', "'status' is no list"), ('{"new": 5, "deleted": null}', "'new' is no list"),
            ('{"new": null}', "'deleted' is missing"), ('{"new": null, "deleted": {}}', "'deleted' is no list"),
            ('{"new": ["x"], "deleted": []}', "'new' has something else"),
        ):  # fmt: skip
            self.again()
            self.played.wrong = wrong
            problem = await self.problem()
            before = "its answer has no lists of decisions: "
            self.assertEqual(problem.removeprefix(before), expected)
        self.again()
        self.played.wrong = None
        self.assertIsNone(await self.look())

    async def test_silent_crowdsec_times_out_after_ten_seconds(self) -> None:
        self.played.wrong = "silent"
        looking = Deferred.fromCoroutine(self.problem())
        while not self.played.asked:
            self.assertNoResult(looking)
            await deferLater(reactor, 0)
        self.time.advance(10)
        self.assertEqual(await looking, "no answer in 10 s")

    async def test_bad_key_is_a_problem_and_a_new_one_is_read(self) -> None:
        wrong = f"'{self.key}' does not hold one line of at most 65536 characters with a secret; write it there"
        for content, why in (
            ("other\n", f"it rejects the key in '{self.key}'; create one with 'cscli bouncers add'"),
            ("", wrong), ("a\nb", wrong), (None, f"cannot read '{self.key}': No such file or directory"),
        ):  # fmt: skip
            self.key.unlink() if content is None else self.key.write_text(content)
            self.assertEqual(await self.problem(), why)
            self.again()
        self.key.write_text(KEY)
        self.assertEqual(await self.look(), [])


def _told(text: str) -> Iterator[str]:
    for told in (text, {text: text}, {"new": text, "deleted": None}):
        reader = DecisionsReader(0.0)
        yield from refused(reader.feed, json.dumps(told).encode())
        yield from refused(reader.end)
    yield written(banned_network(f"fe80::1%{text}"))


_DENIED = (
    "[txmux]\ncrowdsec_key = k\n[listen a]\nendpoint = :8443\ndeny = crowdsec:http://127.0.0.1\n"
)


class CrowdSecTest(SupervisedTestCase):
    async def test_decisions(self) -> None:
        """Whom it bans is kept out, and what it takes back is let in; what it told goes on over a reload. If it is away for a minute, somebody has to look."""
        networks, played = ServedNetworks(self), CrowdSecPlayed(self)
        (self.folder / "key").write_text(KEY)
        listener = f"deny = 192.0.2.0/24, crowdsec:{played.url}\n"
        settings = "crowdsec_key = key\n"
        port = await networks.begin(listener, settings=settings)
        self.assertTrue(await networks.is_let_in(port))
        await networks.after(11, lambda: len(played.asked) == 2)
        played.new = [decision("127.0.0.0/8")]
        await networks.after(11, networks.denies)
        self.assertFalse(await networks.is_let_in(port))
        played.new = None
        rules = WITH_SETTINGS % settings + listener + "peek_limit = 7\n" + networks.route % ""
        await self.change(rules)
        self.assertTrue(networks.denies())
        played.deleted = [decision("127.0.0.0/8")]
        await networks.after(11, lambda: not networks.denies())
        self.assertTrue(await networks.is_let_in(port))
        self.assertEqual(played.asked.count("true"), 1)
        played.wrong = 500
        (source,) = self.running.control.lists.sources()
        await networks.after(71, lambda: source.state().is_overdue)
        (told,) = (await self.running.control.status())["attention"]
        self.assertIn(f"crowdsec {played.url}: no good answer for ", told["text"])
        self.assertEqual(told["cause"], "it answers 500")
        played.wrong = None
        await networks.after(81, lambda: not source.state().is_overdue)
        self.assertEqual((await self.running.control.status())["attention"], [])


class SandboxTest(AdminCase):
    async def test_crowdsec_feed(self) -> None:
        played = CrowdSecPlayed(self)
        (self.folder / "key").write_text(KEY)
        rules = f"{LISTEN}deny = crowdsec:{played.url}\n"
        self.assertEqual(await self.confined("crowdsec_key = key", rules), [True])
        while not played.asked:
            await deferLater(reactor, 0.01)
