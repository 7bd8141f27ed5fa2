"""What is known of a certificate's renewal, and what a file may say of it."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase

from tests.features.acme.test_folder import damages
from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from tests.support.peers import PeerFactory, listen, reactor
from txmux.errors import MuxError
from txmux.features.acme.authority import AuthorityError, UnusableError
from txmux.features.acme.folder import NO_CERTIFICATE, ShownCertificate
from txmux.features.acme.renewal import _PROVISIONAL, Certificates, Renewal
from txmux.rules.model import Route, Rules, Settings, TlsSettings
from txmux.telemetry.sources import Source
from txmux.wire import codec

_DAY = 86400.0
_SHOWN = ShownCertificate(b"", ("a.example",), "CN=x", 0.0, 90 * _DAY, is_self_signed=False)
_END = TlsSettings((Path("a.example.pem"),), managed=("a.example",))
_VALUES = st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text()


def ask(made: Certificates, authority: Any) -> None:
    """Have certificates of an authority of the test, whichever rules name."""
    for account in made._accounts.values():
        account.authority = authority


def _rules(settings: Settings) -> Rules:
    return Rules(Path("x.ini"), settings, (), (Route("site", (), None, terminate_tls=_END),))


class RenewalTests(TestCase):
    @given(st.dictionaries(st.sampled_from([*codec.write(Renewal()), "other"]), _VALUES) | _VALUES)
    def test_any_file(self, values: object) -> None:
        """Whatever a file holds, it can be asked when the certificate is due."""
        found = Renewal.read(values)
        found.due(_SHOWN, found.directory)
        self.assertEqual(Renewal.read(codec.write(found)), found)

    def test_due(self) -> None:
        """With a third of its time left, half of six days, or sooner if the authority says so; but not before it may be asked again."""
        renewal, third = Renewal(directory="a"), 60 * _DAY
        self.assertEqual(renewal.due(_SHOWN, "a"), third)
        self.assertEqual(renewal.due(attrs.evolve(_SHOWN, not_after=6 * _DAY), "a"), 3 * _DAY)
        self.assertEqual(Renewal("a", suggested=10.0).due(_SHOWN, "a"), 10.0)
        self.assertEqual(Renewal("a", suggested=80 * _DAY).due(_SHOWN, "a"), third)
        late = Renewal("a", not_before=third + 1, suggested=10.0)
        self.assertEqual(late.due(_SHOWN, "a"), third + 1)
        self.assertEqual(renewal.due(_SHOWN, "b"), 0.0)
        self.assertEqual(Renewal("a", not_before=15.0, why="no answer").due(_SHOWN, "a"), 15.0)
        self.assertEqual(renewal.due(NO_CERTIFICATE, "a"), 0.0)

    def test_items(self) -> None:
        """What a certificate needs attention for, by itself, and for what it shares with other machines."""
        state: Any = SimpleNamespace(
            _folder_problem="cannot write", _refused_since=0.0, _unusable={"a": "no key", "gone": ""},
            _names=["a"], _now=lambda: 86400.0, _renewals={"a": Renewal()}, _shown={"a": _SHOWN},
        )  # fmt: skip
        renew = "txmux certificates --renew a"
        found = []
        for its, why in (
            (attrs.evolve(_SHOWN, not_after=90.0), ""),
            (attrs.evolve(_SHOWN, not_after=90.0), "no"),
            (attrs.evolve(_SHOWN, not_after=1e5), "no"),
            (NO_CERTIFICATE, ""),
            (NO_CERTIFICATE, "no"),
        ):
            state._shown, state._renewals = {"a": its}, {"a": Renewal(why=why)}
            *others, last = Certificates.troubles(state)
            found.append((last.level, last.text, last.cause, last.do))
        ends = (
            "1970-01-01 00:01 UTC, and could not be renewed",
            "1970-01-02 03:46 UTC, and could not be renewed",
        )
        self.assertEqual(
            found,
            [
                (
                    "warning",
                    "another machine has put a certificate for a into Redis that cannot be used",
                    "no key",
                    renew,
                ),
                ("critical", f"the certificate of a ended on {ends[0]}", "no", renew),
                ("warning", f"the certificate of a ends on {ends[1]}", "no", renew),
                ("warning", f"a {_PROVISIONAL}", "", renew),
                ("critical", f"a {_PROVISIONAL}", "no", renew),
            ],
        )
        self.assertEqual(
            [item.text for item in others],
            [
                "cannot write",
                "another machine has asked for certificates for 1 d, and given none",
                "another machine has put a certificate for a into Redis that cannot be used",
            ],
        )

    def test_removed(self) -> None:
        """Who waits for a certificate that new rules do not ask for any more is told so."""
        settings = Settings(
            more={"acme": "https://a.example/dir", "acme_folder": make_folder(self)}
        )
        made = Certificates(reactor, lambda _: succeed(None))
        made.commit(_rules(settings))
        waiting = made.renew("a.example")
        self.assertNoResult(waiting)
        made.look()
        self.assertEqual(len([*made.sources()]), 1)
        made.commit(Rules(Path("x.ini"), settings, (), ()))
        self.assertEqual([*made.sources()], [])
        self.assertIn(
            "no longer ask for a certificate for a.example",
            str(self.failureResultOf(waiting, MuxError)),
        )

    def test_folder_without_certificates(self) -> None:
        """It is logged once that clients see no certificate of an authority, also when a reload names another folder."""
        full, empty = make_folder(self), make_folder(self)
        make_authority().issue("a.example").write(full / "a.example.pem", key=True)
        made = Certificates(reactor, lambda _: succeed(None))
        with capturedLogs() as lines:
            for folder, count in ((full, 0), (empty, 1), (empty, 1), (full, 1), (empty, 2)):
                made.commit(
                    _rules(Settings(more={"acme": "https://a.example/dir", "acme_folder": folder}))
                )
                self.assertEqual(len(lines), count)
        self.assertIn("no certificate of an authority yet", lines[0]["words"])

    async def test_one_name_without_an_answer(self) -> None:
        """If the authority says nothing for one name alone, others get their certificates; that one is asked for more and more seldom."""
        names, root = ("a.example", "b.example", "c.example"), make_authority()
        asked: list[str] = []

        class Silent:
            is_connected = True

            async def issue(self, name: str, *_: object) -> bytes:
                asked.append(name)
                if name == names[0]:
                    raise UnusableError("no answer", counts=False)
                issued = root.issue(name)
                return issued.key_pem() + issued.pem

            async def renewal_time(self, _: bytes) -> tuple[None, float]:
                return None, 86400.0

        now = time.time()
        folder = make_folder(self)
        made = Certificates(reactor, lambda _: succeed(None), now=lambda: now + len(ticks))
        end = TlsSettings(tuple(folder / f"{name}.pem" for name in names), managed=names)
        settings = Settings(more={"acme": "https://a.example/dir", "acme_folder": folder})
        route = Route("site", (), None, terminate_tls=end)
        ticks: list[None] = []
        made.commit(Rules(Path("x.ini"), settings, (), (route,)))
        authority: Any = Silent()
        ask(made, authority)
        for _ in range(3600):
            made.look()
            ticks.append(None)
        self.assertEqual(len([*made.troubles()]), 1)
        self.assertEqual([asked.count(name) for name in names[1:]], [1, 1])
        self.assertEqual(asked[:2], [*names[:2]])
        self.assertIn(asked.count(names[0]), range(5, 10))
        self.assertGreater(made.seconds_left()[names[2]], 86400)

    async def test_two_authorities(self) -> None:
        """One that is away, or sets a limit for all names, keeps nothing from the other; a route that goes to another, or to another profile there, has its certificate asked for anew, and only that."""
        folder, root = make_folder(self), make_authority()
        asked: list[tuple[str, object]] = []

        class Good:
            is_connected = True

            async def issue(self, name: str, _: object, profile: str) -> bytes:
                asked.append((name, profile))
                issued = root.issue(name)
                return issued.key_pem() + issued.pem

            async def renewal_time(self, _: bytes) -> tuple[None, float]:
                return None, _DAY

        class Away:
            is_connected, counts = True, False

            async def issue(self, *_: object) -> bytes:
                raise AuthorityError("away", counts=self.counts, wait=3600.0, is_for_all=True)

        now = [time.time()]
        made = Certificates(reactor, lambda _: succeed(None), now=lambda: now[0])
        good, away = "https://good.example/", "https://away.example/"

        def commit(**own: Mapping[str, object]) -> None:
            routes = [
                Route(name, (), None, more=more, terminate_tls=TlsSettings((folder / f"{name}.pem",), managed=(name,)))
                for name, more in own.items()
            ]  # fmt: skip
            settings = Settings(more={"acme": good, "acme_folder": folder})
            made.commit(Rules(Path("x.ini"), settings, (), tuple(routes)))
            for directory, authority in ((good, Good()), (away, Away())):
                if directory in made._accounts:
                    made._accounts[directory].authority = cast("Any", authority)
            for _ in range(20):
                made.look()
                now[0] += 1

        commit(a={"acme": away}, b={}, c={}, d={"acme": away})
        self.assertEqual(asked, [("b", ""), ("c", "")])
        self.assertEqual({item.cause for item in made.troubles()}, {"away", ""})
        kept = made._accounts[good]
        commit(a={}, b={"acme_profile": "shortlived"}, c={}, d={"acme": away})
        self.assertEqual(sorted(asked[2:]), [("a", ""), ("b", "shortlived")])
        self.assertIs(made._accounts[good], kept)
        self.assertGreater(made._quiet("d"), now[0])
        self.assertEqual(made._quiet("a"), 0.0)
        rows = [(row["name"], row["authority"], row["profile"]) for row in made.certificates()]
        expected = [
            ("a", good, None), ("b", good, "shortlived"), ("c", good, None), ("d", away, None),
        ]  # fmt: skip
        self.assertEqual(rows, expected)
        # A restart knows by what each was got.
        made = Certificates(reactor, lambda _: succeed(None), now=lambda: now[0])
        commit(a={}, b={"acme_profile": "shortlived"}, c={}, d={"acme": away})
        self.assertEqual(len(asked), 4)

    async def test_another_authority_that_does_not_answer_at_first(self) -> None:
        """It is asked until it has given a certificate, though the one of the authority before is good for long."""
        folder, root = make_folder(self), make_authority()
        root.issue("a.example").write(folder / "a.example.pem", key=True)
        asked: list[float] = []

        class Late:
            is_connected = True

            async def issue(self, name: str, *_: object) -> bytes:
                asked.append(len(ticks))
                if len(asked) < 3:
                    raise AuthorityError("no answer", counts=False)
                issued = root.issue(name)
                return issued.key_pem() + issued.pem

            async def renewal_time(self, _: bytes) -> tuple[None, float]:
                return None, 86400.0

        began, ticks = time.time(), list[None]()
        made = Certificates(reactor, lambda _: succeed(None), now=lambda: began + len(ticks))
        authority: Any = Late()
        made.commit(_rules(Settings(more={"acme": "https://a.example/dir", "acme_folder": folder})))
        ask(made, authority)
        for _ in range(120):
            made.look()
            ticks.append(None)
        self.assertEqual(asked, [0, 15, 45])
        self.assertEqual([*made.troubles()], [])

    async def test_folder_that_is_away_for_a_while(self) -> None:
        """It is named, logged once, and no longer an item as soon as it can be written to."""
        folder = make_folder(self) / "acme"
        folder.mkdir()
        make_authority().issue("a.example").write(folder / "a.example.pem", key=True)
        began, ticks = time.time(), list[None]()
        made = Certificates(reactor, lambda _: succeed(None), now=lambda: began + len(ticks))
        settings = Settings(more={"acme": "https://127.0.0.1:1/dir", "acme_folder": folder})
        made.commit(_rules(settings))
        folder.rename(folder.with_name("away"))
        with capturedLogs() as lines:
            for _ in range(40):
                made.look()
                await deferLater(reactor, 0)
                ticks.append(None)
        texts = [eventAsText(line, includeTimestamp=False) for line in lines]
        (text,) = [text for text in texts if "cannot write to" in text]
        self.assertIn(f"cannot write to '{folder}': No such file or directory", text)
        self.assertIn(f"'{folder}/account-", str([item.cause for item in made.troubles()]))
        folder.with_name("away").rename(folder)
        for _ in range(20):
            made.look()
            await deferLater(reactor, 0)
            ticks.append(None)
        self.assertNotIn("cannot write", str([*made.troubles()]))
        await made.stop()

    async def test_limit(self) -> None:
        """A limit of one name stops that one alone, one of the account all; the next renewal is said as it will be."""
        names, root = ("a.example", "b.example"), make_authority()
        asked: list[str] = []

        class Limiting:
            is_connected, is_for_all = True, False

            async def issue(self, name: str, *_: object) -> bytes:
                asked.append(name)
                if name == names[0]:
                    raise AuthorityError(
                        "too many", counts=True, wait=86400.0, is_for_all=self.is_for_all
                    )
                issued = root.issue(name)
                return issued.key_pem() + issued.pem

            async def renewal_time(self, _: bytes) -> tuple[None, float]:
                return None, 10**9

        now = [time.time()]
        for is_for_all in (False, True):
            folder = make_folder(self)
            made = Certificates(reactor, lambda _: succeed(None), now=lambda: now[0])
            end = TlsSettings(tuple(folder / f"{name}.pem" for name in names), managed=names)
            settings = Settings(more={"acme": "https://a.example/dir", "acme_folder": folder})
            route = Route("site", (), None, terminate_tls=end)
            made.commit(Rules(Path("x.ini"), settings, (), (route,)))
            authority: Any = Limiting()
            authority.is_for_all = is_for_all
            ask(made, authority)
            begun, asked[:] = now[0], []
            with capturedLogs() as lines:
                for _ in range(10):
                    made.look()
                    now[0] += 1
            whom = [str(line["more"]) for line in lines if "more" in line]
            self.assertEqual(whom, [", and none for other names before" if is_for_all else ""])
            self.assertEqual(asked, [*names[:1]] if is_for_all else [*names])
            for row in made.certificates()[: 1 + is_for_all]:
                self.assertGreaterEqual(row["next_renewal"], begun + 86400)
            # After a restart the same is so.
            again = Certificates(reactor, lambda _: succeed(None), now=lambda: now[0])
            again.commit(Rules(Path("x.ini"), settings, (), (route,)))
            ask(again, authority)
            again.look()
            self.assertEqual(len(asked), 1 if is_for_all else 2)

    async def test_suggestion_that_never_ends(self) -> None:
        """An authority that wants each certificate renewed at once is obeyed once a day."""
        folder, asked = make_folder(self), []
        root, now = make_authority(), [time.time()]

        class Hurrying:
            is_connected = True

            async def issue(self, name: str, *_: object) -> bytes:
                asked.append(name)
                issued = root.issue(name)
                return issued.key_pem() + issued.pem

            async def renewal_time(self, _: bytes) -> tuple[float, float]:
                return now[0] - 5, 60.0

        made = Certificates(reactor, lambda _: succeed(None), now=lambda: now[0])
        end = TlsSettings((folder / "a.example.pem",), managed=("a.example",))
        settings = Settings(more={"acme": "https://a.example/dir", "acme_folder": folder})
        made.commit(
            Rules(Path("x.ini"), settings, (), (Route("site", (), None, terminate_tls=end),))
        )
        hurrying: Any = Hurrying()
        ask(made, hurrying)
        for hours, count in ((1, 2), (23, 2), (2, 3)):
            for _ in range(hours * 12):
                now[0] += 300
                made.look()
            self.assertEqual(len(asked), count)

    async def test_unusable(self) -> None:
        """What listeners could not load replaces nothing, from the authority or from another machine: why is an item, and a good one follows."""
        name, root, folder = "a.example", make_authority(), make_folder(self)
        before, after = (root.issue(name, ends=days) for days in (3, 60))
        good = after.key_pem() + after.pem
        file = folder / f"{name}.pem"
        now, answers = [0.0], list[bytes]()

        class Damaging:
            is_connected = True

            async def issue(self, *_: object) -> bytes:
                return answers.pop(0)

            async def renewal_time(self, _: bytes) -> tuple[None, float]:
                return None, 86400.0

        class Redis:
            source, is_up = Source("certificates", "", "", reactor.seconds), True

            async def poll(self) -> tuple[dict[str, str], bool]:
                return {}, True

            async def certificate(self, _: str, __: str) -> bytes:
                return answers.pop(0)

        for is_shared in (False, True):
            before.write(file, key=True)
            now[0] = time.time()
            answers[:] = [*damages(good), good]
            made = Certificates(reactor, lambda _: succeed(None), now=lambda: now[0])
            end = TlsSettings((file,), managed=(name,))
            settings = Settings(more={"acme": "https://a.example/dir", "acme_folder": folder})
            route = Route("site", (), None, terminate_tls=end)
            made.commit(Rules(Path("x.ini"), settings, (), (route,)))
            fakes: Any = Damaging(), Redis()
            if is_shared:
                made._shared = fakes[1]
                made._renewals[name].not_before = now[0] + 10**9
            ask(made, fakes[0])
            while answers:
                shown = file.read_bytes()
                made.look()
                if not answers:
                    break
                self.assertEqual(file.read_bytes(), shown)
                (item,) = made.troubles()
                self.assertTrue(item.cause)
                self.assertGreater(made.seconds_left()[name], 0)
                now[0] += 6 * 3600
            self.assertEqual(file.read_bytes(), good)
            self.assertEqual([*made.troubles()], [])
            made._shared = None

    def test_damaged_in_use(self) -> None:
        """A file that is damaged later changes nothing of what is shown, also while the authority fails."""
        name, folder = "a.example", make_folder(self)
        good = make_authority().issue(name).write(folder / f"{name}.pem", key=True)
        shown = good.read_bytes()
        made = Certificates(reactor, lambda _: succeed(None))
        made.commit(_rules(Settings(more={"acme": "https://a.example/dir", "acme_folder": folder})))
        for damaged in damages(shown):
            good.write_bytes(damaged)
            made._failed(name, made._renewals[name], MuxError("no answer"))
            self.assertEqual(good.read_bytes(), shown)
            self.assertEqual(made._shown[name].pem, shown)

    async def test_asked_in_vain_before_a_reload(self) -> None:
        """Whoever asks for a certificate gets the answer of the authority of the new rules, which is asked at once; the others are left."""
        servers = [PeerFactory(), PeerFactory(), PeerFactory()]
        urls = [f"https://127.0.0.1:{listen(self, one)}/dir" for one in servers]
        settings = Settings(more={"acme_folder": make_folder(self)})
        made = Certificates(reactor, lambda _: succeed(None))
        waiting: Deferred[str] = Deferred()
        before: Any = None
        for url, server in zip(urls, servers, strict=True):
            made.commit(_rules(attrs.evolve(settings, more={**settings.more, "acme": url})))
            if before is None:
                waiting = made.renew("a.example") or waiting
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
        self.assertRaises(MuxError, made.renew, "a.example")
