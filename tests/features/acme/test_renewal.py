import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase

from tests.features.acme.test_folder import damages
from tests.support.kit import PeerFactory, listen, make_authority, make_folder, reactor
from txmux.errors import MuxError
from txmux.features.acme.authority import Authority, AuthorityError, UnusableError
from txmux.features.acme.folder import NO_CERTIFICATE, AcmeFolder, ShownCertificate
from txmux.features.acme.renewal import PROVISIONAL, Certificates, Renewal
from txmux.rules.model import Route, Rules, Settings, TlsSettings
from txmux.rules.model.section import Section
from txmux.telemetry.sources import Source
from txmux.wire import codec

_DAY = 86400.0
_SHOWN = ShownCertificate(b"", ("a.example",), "CN=x", 0.0, 90 * _DAY, is_self_signed=False)
_VALUES = st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text()
_URL, _OTHER_URL = "https://a.example/dir", "https://b.example/dir"
_A, _B, _C = (f"{letter}.example" for letter in "abc")


class PlayedAuthority:
    """Answers as the test says, at once, or when the test opens the `gates`; what `answer` raises is a refusal."""

    is_connected = True

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self.asked: list[str] = []
        self.profiles: list[str] = []
        self.answer = answer
        self.gates: list[Deferred[None]] | None = None
        self.window: tuple[float | None, float] = None, _DAY

    async def issue(self, name: str, _: object, profile: str) -> bytes:
        self.asked.append(name)
        self.profiles.append(profile)
        if self.gates is not None:
            gate: Deferred[None] = Deferred()
            self.gates.append(gate)
            await gate
        return self.answer(name)

    def open(self) -> None:
        while self.gates:
            self.gates.pop().callback(None)

    async def renewal_time(self, _: bytes) -> tuple[float | None, float]:
        return self.window


def refused(why: str, *, counts: bool = True, **more: Any) -> Callable[[str], bytes]:
    def refuse(_: str) -> bytes:
        raise AuthorityError(why, counts=counts, **more)

    return refuse


def _redis(*, held: object, **answers: Callable[..., Any]) -> Any:
    source = Source("certificates", "", "", reactor.seconds)
    return SimpleNamespace(source=source, is_up=True, poll=lambda: succeed(({}, held)), **answers)


class RenewalTests(TestCase):
    def setUp(self) -> None:
        self.now, self.elapsed = time.time(), 0.0
        self.folder, self.root = make_folder(self), make_authority()
        self.authorities: dict[str, Any] = {}

    def issued(self, name: str) -> bytes:
        made = self.root.issue(name)
        return made.key_pem() + made.pem

    def only_others(self, error: Exception) -> Callable[[str], bytes]:
        """Issue for all names but one."""

        def answer(name: str) -> bytes:
            if name == _A:
                raise error
            return self.issued(name)

        return answer

    def play(self, answer: Any = None, url: str = _URL) -> PlayedAuthority:
        played = self.authorities[url] = PlayedAuthority(answer or self.issued)
        return played

    def rules(
        self, *names: str, own: Any = None, author: int | None = None, **settings: Any
    ) -> Rules:
        """Return rules with a route for each name, of which some have keys of their own."""
        folder = settings.setdefault("acme_folder", self.folder)
        routes = (
            Route(one, (), None, more=(own or {}).get(one, {}),
                  terminate_tls=TlsSettings((folder / f"{one}.pem",), managed=(one,), author=author))
            for one in names
        )  # fmt: skip
        return Rules(Path("x.ini"), Settings(more={"acme": _URL, **settings}), (), tuple(routes))

    def prepare(self, made: Certificates, author: int | None) -> Rules:
        rules = self.rules(_A, author=author)
        made.prepare(rules, None)
        return rules

    def certificates(self, *names: str, shared: Any = None, **rules: Any) -> Certificates:
        """Return what renews, by the authorities that the test plays if it plays any."""

        def make(*words: Any) -> Any:
            return self.authorities[words[1].directory] if self.authorities else Authority(*words)

        clock: Any = {"now": lambda: self.now, "seconds": lambda: self.elapsed}
        made = Certificates(
            reactor,
            lambda _: succeed(None),
            make_authority=make,
            make_shared=lambda *_: shared,
            **clock,
        )
        store: dict[str, Any] = {} if shared is None else {"shared_limits": "a store"}
        made.commit(self.rules(*names, **store, **rules))
        return made

    def look(self, made: Certificates, times: int = 1, seconds: float = 1.0) -> None:
        for _ in range(times):
            made.look()
            self.wait(seconds)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.elapsed += seconds

    @given(st.dictionaries(st.sampled_from([*codec.write(Renewal()), "other"]), _VALUES) | _VALUES)
    def test_any_file(self, values: object) -> None:
        """Whatever a file holds, it can be asked when the certificate is due."""
        found = Renewal.read(values)
        found.due(_SHOWN, found.directory)
        self.assertEqual(Renewal.read(codec.write(found)), found)

    def test_name_of_another_author(self) -> None:
        """An author is given no certificate, with its key, that another one had for a name that left the rules; the operator is."""
        played, path = self.play(), self.folder / f"{_A}.pem"
        made, asked = self.certificates(), 0
        for author, is_new in (
            (None, True), (1001, True), (1001, False), (1002, True), (1001, True), (None, False), (1001, False),
        ):  # fmt: skip
            for restarted in (False, True):
                made = self.certificates() if restarted else made
                made.commit(self.prepare(made, author))
                is_asked = is_new and not restarted
                found = ShownCertificate.read(path.read_bytes())
                self.assertEqual(found.is_self_signed, is_asked, author)
                self.look(made)
                asked += is_asked
                self.assertEqual(len(played.asked), asked, author)
                self.assertFalse(ShownCertificate.read(path.read_bytes()).is_self_signed)
                made.commit(self.rules())

    def test_state_of_an_earlier_version(self) -> None:
        """It does not say for whom a certificate was issued, nor when it was written; nothing is removed or asked for anew."""
        played, path = self.play(), self.folder / f"{_A}.pem"
        made = self.certificates(_A)
        self.look(made)
        before, state = path.read_bytes(), AcmeFolder(self.folder).state()
        for key in ("author", "written_at"):
            del state[_A][key]
        for author in (None, 1001):
            for why in ("", "it does not like the name"):
                state[_A] |= {"why": why, "not_before": self.now + 3600}
                AcmeFolder(self.folder).write_state(state)
                made = self.certificates()
                made.commit(self.prepare(made, author))
                self.look(made, 10)
                self.assertEqual((len(played.asked), path.read_bytes()), (1, before))

    def test_reload_that_fails(self) -> None:
        """What is in force keeps its certificate where the reload would have given its name to another author."""
        played, path = self.play(), self.folder / f"{_A}.pem"
        made = self.certificates()
        made.commit(self.prepare(made, 1001))
        self.look(made)
        before = path.read_bytes()
        self.prepare(made, 1002)
        self.assertNotEqual(path.read_bytes(), before)
        made.abandon()
        self.assertEqual(path.read_bytes(), before)
        for one in (made, self.certificates()):
            one.commit(self.prepare(one, 1001))
            self.look(one, 10)
        self.assertEqual((len(played.asked), path.read_bytes()), (1, before))
        made.commit(self.prepare(made, 1002))
        made.abandon()
        self.assertNotEqual(path.read_bytes(), before)

    def test_due(self) -> None:
        """With a third of its time left, half of six days, or sooner if the authority says so; but not before it may be asked again."""
        third, short = 60 * _DAY, attrs.evolve(_SHOWN, not_after=6 * _DAY)
        for renewal, shown, order, due in (
            (Renewal("a"), _SHOWN, "a", third),
            (Renewal("a"), short, "a", 3 * _DAY),
            (Renewal("a", suggested=10.0), _SHOWN, "a", 10.0),
            (Renewal("a", suggested=80 * _DAY), _SHOWN, "a", third),
            (Renewal("a", not_before=third + 1, suggested=10.0), _SHOWN, "a", third + 1),
            (Renewal("a"), _SHOWN, "b", 0.0),
            (Renewal("a", not_before=15.0, why="no answer"), _SHOWN, "a", 15.0),
            (Renewal("a"), NO_CERTIFICATE, "a", 0.0),
        ):
            self.assertEqual(renewal.due(shown, order), due, renewal)

    def test_items(self) -> None:
        """What a certificate needs attention for, by itself, and for what it shares with other machines."""
        state: Any = SimpleNamespace(
            _folder_problem="cannot write", _refused_since=0.0, _unusable={"a": "no key", "gone": ""},
            _names=["a"], _now=lambda: 86400.0, _renewals={"a": Renewal()}, _shown={"a": _SHOWN},
        )  # fmt: skip
        shared = "another machine has put a certificate for a into Redis that cannot be used"
        for its, why, level, text, cause in (
            (attrs.evolve(_SHOWN, not_after=90.0), "", "warning", shared, "no key"),
            (attrs.evolve(_SHOWN, not_after=90.0), "no", "critical",
             "the certificate of a ended on 1970-01-01 00:01 UTC, and could not be renewed", "no"),
            (attrs.evolve(_SHOWN, not_after=1e5), "no", "warning",
             "the certificate of a ends on 1970-01-02 03:46 UTC, and could not be renewed", "no"),
            (attrs.evolve(_SHOWN, is_self_signed=True), "", "warning", f"a {PROVISIONAL}", ""),
            (NO_CERTIFICATE, "no", "critical", "a has no certificate of an authority yet; clients are refused", "no"),
        ):  # fmt: skip
            state._shown, state._renewals = {"a": its}, {"a": Renewal(why=why)}
            *others, last = Certificates.troubles(state)
            found = (last.level, last.text, last.cause, last.do)
            self.assertEqual(found, (level, text, cause, "txmux certificates --renew a"))
        asked = "another machine has asked for certificates for 1 d, and given none"
        self.assertEqual([item.text for item in others], ["cannot write", asked, shared])

    def test_removed(self) -> None:
        """Who waits for a certificate that new rules do not ask for any more is told so; a fault is logged, and keeps the caller from nothing else."""
        made = self.certificates(_A)
        waiting = made.renew(_A)
        self.assertNoResult(waiting)
        made.look()
        self.assertEqual(len([*made.sources()]), 1)
        made.commit(self.rules())
        self.assertEqual([*made.sources()], [])
        why = str(self.failureResultOf(waiting, MuxError))
        self.assertIn(f"no longer ask for a certificate for {_A}", why)
        made = self.certificates(_A)
        del self.now
        made.look()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_folder_without_certificates(self) -> None:
        """It is logged once that clients see no certificate of an authority, also when a reload names another folder."""
        full, empty = self.folder, make_folder(self)
        self.root.issue(_A).write(full / f"{_A}.pem", key=True)
        made = self.certificates()
        with capturedLogs() as lines:
            for folder, count in ((full, 0), (empty, 1), (empty, 1), (full, 1), (empty, 2)):
                made.commit(self.rules(_A, acme_folder=folder))
                self.assertEqual(len(lines), count)
        self.assertIn("no certificate of an authority yet", lines[0]["words"])

    async def test_one_name_without_an_answer(self) -> None:
        """If the authority says nothing for one name alone, others get their certificates; that one is asked for more and more seldom."""
        played = self.play(self.only_others(UnusableError("no answer", counts=False)))
        made = self.certificates(_A, _B, _C)
        self.look(made, 3600)
        self.assertEqual(len([*made.troubles()]), 1)
        self.assertEqual([played.asked.count(name) for name in (_B, _C)], [1, 1])
        self.assertEqual(played.asked[:2], [_A, _B])
        self.assertIn(played.asked.count(_A), range(5, 10))
        self.assertGreater(made.seconds_left()[_C], _DAY)

    async def test_two_authorities(self) -> None:
        """One that is away, or sets a limit for all names, keeps nothing from the other; a route that goes to another, or to another profile there, has its certificate asked for anew, and only that."""
        refuse = refused("away", counts=False, wait=3600.0, is_for_all=True)
        good, _ = self.play(), self.play(refuse, _OTHER_URL)
        away = {"acme": _OTHER_URL}
        made = self.certificates(*"abcd", own={"a": away, "d": away})
        self.look(made, 20)
        self.assertEqual((good.asked, good.profiles), (["b", "c"], ["", ""]))
        self.assertEqual({item.cause for item in made.troubles()}, {"away", ""})
        kept = [*made.sources()][1]
        changed = {"b": {"acme_profile": "shortlived"}, "d": away}
        made.commit(self.rules(*"abcd", own=changed))
        self.look(made, 20)
        asked = sorted(zip(good.asked[2:], good.profiles[2:], strict=True))
        self.assertEqual(asked, [("a", ""), ("b", "shortlived")])
        self.assertIn(kept, [*made.sources()])
        rows = [(row["name"], row["authority"], row["profile"]) for row in made.certificates()]
        self.assertEqual(rows, [
            ("a", _URL, None), ("b", _URL, "shortlived"), ("c", _URL, None), ("d", _OTHER_URL, None),
        ])  # fmt: skip
        # The limit for all names is that of `d`, and no more that of `a`.
        due = {row["name"]: row["next_renewal"] for row in made.certificates()}
        self.assertTrue(self.now + 3000 < due["d"] < due["a"])
        # A restart knows by what each was got.
        self.look(self.certificates(*"abcd", own=changed), 20)
        self.assertEqual(len(good.asked), 4)

    async def test_bad_names_of_an_owner(self) -> None:
        """The authority gets one order at a time after a failure, and owners take turns."""
        names = ["1.bad", "2.bad", "3.bad", _A]
        played = self.play(refused("no such name", wait=60.0))
        played.gates = []
        rules, owners = self.rules(*names), {name: name.rpartition(".")[2] for name in names}
        sections = {name: Section(owner, 1, "", {}) for name, owner in owners.items()}
        routes = [attrs.evolve(one, section=sections[one.name]) for one in rules.routes]
        units = {path: ((0, path),) for path in owners.values()}
        made = self.certificates()
        for count in (1, 4):  # another owner comes when one order has failed
            made.commit(attrs.evolve(rules, routes=tuple(routes[:count]), units=units))
            self.look(made)
            played.open()
        self.look(made)
        self.assertEqual(played.asked, ["1.bad", _A, "2.bad"])
        await made.stop()

    async def test_another_authority_that_does_not_answer_at_first(self) -> None:
        """It is asked until it has given a certificate, though the one of the authority before is good for long."""
        self.root.issue(_A).write(self.folder / f"{_A}.pem", key=True)
        began, asked = self.now, list[float]()

        def answer(name: str) -> bytes:
            asked.append(self.now - began)
            return refused("no answer", counts=False)(name) if len(asked) < 3 else self.issued(name)

        self.play(answer)
        made = self.certificates(_A)
        self.look(made, 120)
        self.assertEqual((asked, [*made.troubles()]), ([0, 15, 45], []))

    async def test_folder_that_is_away_for_a_while(self) -> None:
        """It is named, logged once, and no longer an item as soon as it can be written to."""
        folder = self.folder / "acme"
        folder.mkdir()
        self.root.issue(_A).write(folder / f"{_A}.pem", key=True)
        made = self.certificates(_A, acme="https://127.0.0.1:1/dir", acme_folder=folder)

        async def pass_time(seconds: int) -> None:
            for _ in range(seconds):
                self.look(made)
                await deferLater(reactor, 0)

        folder.rename(folder.with_name("away"))
        with capturedLogs() as lines:
            await pass_time(40)
        texts = [eventAsText(line, includeTimestamp=False) for line in lines]
        (text,) = [text for text in texts if "cannot write to" in text]
        self.assertIn(f"cannot write to '{folder}': No such file or directory", text)
        self.assertIn(f"'{folder}/account-", str([item.cause for item in made.troubles()]))
        folder.with_name("away").rename(folder)
        await pass_time(20)
        self.assertNotIn("cannot write", str([*made.troubles()]))
        await made.stop()

    async def test_limit(self) -> None:
        """A limit of one name stops that one alone, one of the account all; the next renewal is said as it will be."""
        for is_for_all in (False, True):
            error = AuthorityError("too many", counts=True, wait=_DAY, is_for_all=is_for_all)
            played, self.folder = self.play(self.only_others(error)), make_folder(self)
            played.window = None, 1e9
            made, begun = self.certificates(_A, _B), self.now
            with capturedLogs() as lines:
                self.look(made, 10)
            whom = [str(line["more"]) for line in lines if "more" in line]
            self.assertEqual(whom, [", and none for other names before" if is_for_all else ""])
            self.assertEqual(played.asked, [_A] if is_for_all else [_A, _B])
            for row in made.certificates()[: 1 + is_for_all]:
                self.assertGreaterEqual(row["next_renewal"], begun + _DAY)
            # After a restart the same is so.
            self.look(self.certificates(_A, _B))
            self.assertEqual(len(played.asked), 1 if is_for_all else 2)

    async def test_side_by_side(self) -> None:
        """Once the authority has answered, four names are asked for at a time; a restart then asks for nothing until a third of the time is left."""
        names, played = [f"{letter}.example" for letter in "abcdef"], self.play()
        played.gates, played.is_connected = [], False
        made = self.certificates(*names)
        for count in (1, 5, 6):
            self.look(made, 3)
            self.assertEqual(len(played.asked), count)
            played.is_connected = True
            played.open()
        self.look(made)
        self.assertEqual([*made.troubles()], [])
        row, *_ = made.certificates()
        left = (row["not_after"] - row["not_before"]) / 3
        self.assertAlmostEqual(row["not_after"] - row["next_renewal"], left, places=1)
        made = self.certificates(*names)
        for at, count in ((row["next_renewal"] - 60, 6), (row["next_renewal"] + 1, 6 + 4)):
            self.wait(at - self.now)
            self.look(made)
            self.assertEqual(len(played.asked), count)
        played.open()

    async def test_clock_set(self) -> None:
        """A wait takes as long as before when the clock is set, while the service runs or between two runs; during a request, as after the start of a machine, it begins by the new time."""
        played = self.play(refused("it does not like the name"))
        for years, when in product((-3, 3), ("running", "restarted", "asked")):
            name, asked = f"{years}{when}.example", len(played.asked)
            played.gates = [] if when == "asked" else None
            made = self.certificates(name)
            self.look(made)
            self.now += years * 365 * _DAY
            played.open()
            if when == "restarted":
                made = self.certificates(name)
            self.look(made, 13)
            self.assertEqual(len(played.asked), asked + 1 + (when == "restarted" and years > 0))
            self.look(made, 3)
            self.assertEqual(len(played.asked), asked + 2)
            played.open()

    async def test_day_away(self) -> None:
        """While the authority is away for a day, it is asked more and more seldom, and once it is back, gives its certificates."""
        asked = list[float]()

        def answer(_: str) -> bytes:
            asked.append(self.now)
            raise AuthorityError("cannot be reached", counts=False)

        played = self.play(answer)
        made = self.certificates(_A, _B)
        self.look(made, 1440, 60)
        self.assertLess(len(asked), 80)  # of two names
        self.assertLessEqual(max(b - a for a, b in pairwise(asked)), 3660)
        self.assertEqual({item.cause for item in made.troubles()}, {"cannot be reached"})
        self.assertEqual(made.seconds_left(), {_A: 0.0, _B: 0.0})
        played.answer = self.issued
        self.look(made, 120, 60)
        self.assertEqual([*made.troubles()], [])
        self.assertGreater(min(made.seconds_left().values()), _DAY)

    async def test_suggestion(self) -> None:
        """It is renewed when the authority says so, as for one that is revoked, of which it is asked four times a day; one that wants each certificate renewed at once is obeyed once a day."""
        played = self.play()
        played.window = self.now + 30 * _DAY, 21600.0
        made = self.certificates(_A)
        self.look(made, 10, 60)
        [row] = made.certificates()
        self.assertEqual(row["next_renewal"], played.window[0])
        played.window = self.now - 3600, 21600.0
        for minutes, count in ((340, 1), (30, 2)):
            self.look(made, minutes, 60)
            self.assertEqual(len(played.asked), count)
        played = self.play()
        made = self.certificates(_B)
        for hours, count in ((1, 2), (23, 2), (2, 3)):
            for _ in range(hours * 12):
                self.wait(300)
                played.window = self.now - 5, 60.0
                made.look()
            self.assertEqual(len(played.asked), count)

    async def test_unusable(self) -> None:
        """What listeners could not load replaces nothing, from the authority or from another machine: why is an item, and a good one follows."""
        before, after = (self.root.issue(_A, ends=days) for days in (3, 60))
        good, file = after.key_pem() + after.pem, self.folder / f"{_A}.pem"
        answers = list[bytes]()
        self.play(lambda _: answers.pop(0))
        redis = _redis(held=True, certificate=lambda *_: succeed(answers.pop(0)))
        for is_shared in (False, True):
            before.write(file, key=True)
            self.now = time.time()
            answers[:] = [*damages(good), good]
            if is_shared:
                AcmeFolder(self.folder).write_state({_A: {"not_before": self.now + 10**9}})
            made = self.certificates(_A, shared=redis if is_shared else None)
            while answers:
                shown = file.read_bytes()
                made.look()
                if not answers:
                    break
                self.assertEqual(file.read_bytes(), shown)
                (item,) = made.troubles()
                self.assertTrue(item.cause)
                self.assertGreater(made.seconds_left()[_A], 0)
                self.wait(6 * 3600)
            self.assertEqual((file.read_bytes(), [*made.troubles()]), (good, []))

    async def test_names_of_other_users_at_other_machines(self) -> None:
        """What a machine gets for a user of its own is no certificate of the operator's name here, and the other way around."""
        self.play()
        rules = self.rules(_A, shared_limits="a store")
        theirs = self.rules(_B, author=12345).routes
        used = set[tuple[str, str]]()

        def use(what: str, _: str, name: str, *__: object) -> Deferred[None]:
            used.add((what, name))
            return succeed(None)

        shared = SimpleNamespace(
            source=Source("certificates", "", "", reactor.seconds),
            is_up=True,
            spread=0.0,
            poll=lambda: succeed(({_A: "00", _B: "11"}, True)),
            certificate=partial(use, "get"),
            put=partial(use, "put"),
            lock=lambda: succeed(1),
            unlock=lambda: succeed(None),
        )
        made = self.certificates(_A, shared=shared)
        made.commit(attrs.evolve(rules, routes=rules.routes + theirs))
        self.look(made, 3)
        names = _A, f"{_B} of user 12345"
        self.assertEqual(used, {(what, name) for what in ("get", "put") for name in names})
        self.assertEqual(made.challenges, {_A: "00"})

    async def test_lock_that_stays(self) -> None:
        """One that another machine has, or that somebody has written, is reported after half an hour."""
        self.play()
        stop = Mock(return_value=succeed(None))
        shared = _redis(
            held=None, certificate=lambda *_: succeed(None), lock=lambda: succeed(None), stop=stop
        )
        made = self.certificates(_A, shared=shared)
        for count in (1, 1, 2):
            made.look()
            self.assertEqual(len([*made.troubles()]), count)
            self.wait(1000)
        self.assertIn("delete the key 'txmux:acme:lock'", next(made.troubles()).do)
        await made.stop()
        stop.assert_called_once_with()

    async def test_damaged_in_use(self) -> None:
        """A file that is damaged later changes nothing of what is shown, also while the authority fails."""
        self.play(refused("no answer"))
        good = self.root.issue(_A).write(self.folder / f"{_A}.pem", key=True)
        shown = good.read_bytes()
        made = self.certificates(_A)
        for damaged in damages(shown):
            good.write_bytes(damaged)
            waiting = made.renew(_A)
            assert waiting is not None
            made.look()
            await self.assertFailure(waiting, MuxError)
            self.assertEqual((good.read_bytes(), made.in_use()[_A]), (shown, shown))

    async def test_asked_in_vain_before_a_reload(self) -> None:
        """Whoever asks for a certificate gets the answer of the authority of the new rules, which is asked at once; the others are left."""
        servers = [PeerFactory(), PeerFactory(), PeerFactory()]
        urls = [f"https://127.0.0.1:{listen(self, one)}/dir" for one in servers]
        made = self.certificates()
        waiting: Deferred[str] = Deferred()
        before: Any = None
        for url, server in zip(urls, servers, strict=True):
            made.commit(self.rules(_A, acme=url))
            if before is None:
                waiting = made.renew(_A) or waiting
            else:
                await before.is_lost()
            made.look()
            before = await server.heard(20)
            self.assertNoResult(waiting)
            self.assertEqual({item.cause for item in made.troubles()}, {""})
        before.close()
        error = await self.assertFailure(waiting, MuxError)
        self.assertIn(f"{urls[-1]}: no whole answer", str(error))
        self.assertTrue([*made.troubles()])
        await made.stop()
        self.assertRaises(MuxError, made.renew, _A)
