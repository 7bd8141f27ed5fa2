import contextlib
import time
import zoneinfo
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from tests.rules.reading import cases
from tests.support.changes import change_environment
from txmux.rules.lint.scopes import scopes
from txmux.rules.model import Period, Refusal, Rules, TlsSettings
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.files import check_file
from txmux.rules.reading.parser import load, parse
from txmux.rules.reading.route import period

LISTEN = "[listen public]\nendpoint = :443\n"
TLS = "match = tls\nterminate_tls = a.pem\n"
PLAIN = "match = any\nbackend = close\n"


def _read(text: str) -> Rules:
    return parse(LISTEN + text, "etc/rules.ini", MATCHERS)


class RouteTests(SynchronousTestCase):
    def test_keys_mean_what_they_say(self) -> None:
        text = f"{cases.LISTEN}[route r]\nmatch = any\nbackend = close\nduring = mon,tue 08:00-12:00\n  22:00-06:00\n"
        (route,) = cases.read(text).routes
        wanted = (Period(frozenset({0, 1}), 480, 720), Period(start=1320, end=360))
        self.assertEqual(route.during, wanted)
        (route,) = _read(
            "[route a]\nmatch = tls\nterminate_tls = a.pem, /b.pem\n  sub/c.pem\nalpn = h2, http/1.1\n"
            "tls_client_ca = ca.pem\ntls_minimum = 1.3\ntls_client_crl = crl.pem\nallow_client = cn=a ou=b\n  san=c\n"
        ).routes
        files = (Path("etc/a.pem"), Path("/b.pem"), Path("etc/sub/c.pem"))
        its = TlsSettings(files, ("h2", "http/1.1"), Path("etc/ca.pem"), "1.3")
        assert route.terminate_tls is not None
        names = route.terminate_tls.allow_client
        self.assertEqual([one.text for one in names], ["cn=a ou=b", "san=c"])
        its = attrs.evolve(its, client_crl=Path("etc/crl.pem"), allow_client=names)
        self.assertEqual((route.terminate_tls, route.outcome), (its, None))
        text = f"[route a]\n{TLS}[route b]\n{TLS}backend = reject\n[route c]\n{PLAIN}"
        one, two, three = _read(text).routes
        self.assertEqual(one.terminate_tls, TlsSettings((Path("etc/a.pem"),)))
        self.assertEqual((one.outcome, two.outcome), (None, Refusal.REJECT))
        self.assertIsNone(three.terminate_tls)
        rules = _read(
            f"[route deep]\n{PLAIN}under = inner\n[route inner]\n{TLS}under = outer\n[route outer]\n{TLS}under = *\n"
            f"[route both]\n{PLAIN}under = public, outer\n[route every]\n{PLAIN}under = *\n"
            "[listen other]\nendpoint = :444\n"
        )
        found = {}
        for scope in scopes(rules):
            inside = [route.name for route in rules.routes_of(scope.owner)]
            found[scope.owner.name] = inside, [listener.name for listener in scope.listeners]
        expected = {
            "public": (["outer", "both", "every"], ["public"]),
            "other": (["outer", "every"], ["other"]),
            "outer": (["inner", "both"], ["public", "other"]),
            "inner": (["deep"], ["public", "other"]),
        }
        self.assertEqual(found, expected)

    def test_certificates_that_are_known(self) -> None:
        asks = f"[route a]\n{TLS}tls_client_ca = ca.pem\ntls_client = optional\n"
        shown = f"any,  san=*.X.example,issuer=CN=Ours,O=One\n  fingerprint={'AB:' * 31}AB"
        text = f"{asks}[route b]\n{PLAIN}under = a\nclient_cert = {shown}"
        first, second = _read(text).routes
        assert first.terminate_tls is not None
        assert second.client_cert is not None
        self.assertEqual(first.terminate_tls.client, "optional")
        words = {"any", "dns=*.X.example", "issuer=CN=Ours,O=One", f"fingerprint={'ab' * 32}"}
        self.assertEqual(second.client_cert.words, words)
        # Inside TLS in TLS, the outer one may have asked.
        inner = f"[route b]\n{TLS}under = a\n[route c]\n{PLAIN}under = b\nclient_cert = any"
        self.assertEqual(len(_read(asks + inner).routes), 3)

    def test_files_have_to_be_there_on_disk_or_be_forbidden(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "rules.ini"
            (path.parent / "b.pem").touch()
            path.write_text(
                f"{LISTEN}[route a]\nmatch = tls\nterminate_tls = a.pem, b.pem, .\ntls_client_ca = b.pem/x\n"
                "[backend b]\nserver = a:1\ntls = yes\ntls_ca = a.pem\n"
            )
            error = self.assertRaises(RulesError, load, path, MATCHERS)
            advice = f"No such file or directory; correct the path, or put the file into '{folder}'"
            expected = [
                f"5 terminate_tls: cannot read '{folder}/a.pem': {advice}",
                f"5 terminate_tls: '{folder}' is a folder; write the path of a PEM file",
                f"6 tls_client_ca: cannot read '{folder}/b.pem/x': Not a directory; correct the path, or put the file into '{folder}/b.pem'",
                f"10 tls_ca: cannot read '{folder}/a.pem': {advice}",
            ]
            self.assertEqual([f"{p.line} {p.key}: {p.message}" for p in error.problems], expected)
            self.assertEqual(len(parse(path.read_text(), path, MATCHERS).routes), 1)
        self.patch(Path, "stat", Mock(side_effect=PermissionError))
        check_file(Path("/etc/x.pem"))

    def test_which_moments_a_period_covers(self) -> None:
        for text, inside, outside in (
            ("mon-fri 08:00-18:00", "mon 08:00, wed 12:00, fri 17:59",
             "mon 07:59, fri 18:00, sat 12:00, sun 12:00"),
            # Over midnight.
            ("fri 22:00-06:00", "fri 22:00, fri 23:59, sat 00:00, sat 05:59",
             "fri 05:59, sat 06:00"),
            ("sun 22:00-06:00", "sun 23:00, mon 03:00", "sun 03:00, mon 22:00"),
            ("22:00-06:00", "mon 22:00, thu 03:00", "mon 21:59, mon 06:00"),
            ("mon 22:00-00:00", "mon 22:00, mon 23:59", "tue 00:00, mon 21:59"),
            # Several days.
            ("sat,sun 00:00-24:00", "sat 00:00, sun 23:59", "mon 00:00, fri 23:59"),
            ("mon, wed-thu 00:00-24:00", "mon 10:00, wed 10:00, thu 10:00",
             "tue 10:00, fri 10:00"),
            ("fri-mon 10:00 - 11:00", "fri 10:30, sun 10:30, mon 10:30", "tue 10:30, thu 10:30"),
        ):  # fmt: skip
            found = period(f"{text} UTC")
            for moment in inside.split(", "):
                self.assertTrue(found.covers(at(moment)), moment)
            for moment in outside.split(", "):
                self.assertFalse(found.covers(at(moment)), moment)
        self.assertEqual(period("sat,sun"), period("sat-sun 0:00-24:00"))
        noon = period("12:00-13:00 Europe/Paris")
        for moment, is_inside in (
            ("2026-11-20T11:30", True), ("2026-11-20T10:30", False), ("2026-07-20T10:30", True),
            ("2026-07-20T11:30", False),
        ):  # fmt: skip
            self.assertIs(noon.covers(at(moment)), is_inside, moment)
        self.addCleanup(time.tzset)
        change_environment(self, TZ="America/New_York")
        time.tzset()
        noon = period("12:00-13:00")
        self.assertTrue(noon.covers(at("2026-11-20T17:30")))
        self.assertFalse(noon.covers(at("2026-11-20T12:30")))
        # A skipped hour is in no period, and one that goes over it is shorter; one that is shown twice is in a period both times.
        hour, start = period("sun 02:00-03:00 Europe/Paris"), at("2026-03-29T00:00")
        self.assertFalse(any(hour.covers(start + 60 * minute) for minute in range(180)))
        night = period("sat 22:00-06:00 Europe/Paris")
        start = at("2026-03-28T22:00", PARIS)
        covered = [night.covers(start + 60 * minute) for minute in range(-1, 600)]
        self.assertEqual((covered.count(True), covered[:2]), (7 * 60, [False, True]))
        for fold in (0, 1):
            self.assertTrue(hour.covers(at("2026-10-25T02:30", PARIS, fold)))
        start = at("2026-10-24T22:00", PARIS)
        self.assertEqual(sum(night.covers(start + 60 * minute) for minute in range(720)), 9 * 60)
        self.patch(zoneinfo, "available_timezones", set)
        expected = "there is no time zone 'Europe/Nowhere'; install this system's tzdata"
        self.assertEqual(cases.complaint(period, "08:00-18:00 Europe/Nowhere"), expected)

    @given(st.integers(0, 1439), st.integers(1, 1440), st.integers(0, 10**9))
    def test_rest_of_the_day(self, start: int, end: int, moment: int) -> None:
        if start == end or end - start == 1440:
            return
        one = Period(start=start, end=end, zone=UTC)
        other = Period(start=end % 1440, end=start, zone=UTC)
        if start == 0:
            other = Period(start=end, end=1440, zone=UTC)
        self.assertIsNot(one.covers(moment), other.covers(moment))

    @given(st.text(st.sampled_from("mon-fri,0123:456 /UTC\x00é"), min_size=1).filter(str.strip))
    def test_any_text_of_a_period(self, text: str) -> None:
        with contextlib.suppress(InvalidValueError):
            period(text.strip())


UTC = ZoneInfo("UTC")
PARIS = ZoneInfo("Europe/Paris")
MONDAY = datetime(2026, 11, 16, tzinfo=UTC)


def at(text: str, zone: ZoneInfo = UTC, fold: int = 0) -> float:
    """Give a moment: ``fri 08:00`` in the week of `MONDAY`, or a whole date."""
    if text[0].isdigit():
        return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()
    day, _, clock = text.partition(" ")
    date = MONDAY + timedelta(days=["mon", "tue", "wed", "thu", "fri", "sat", "sun"].index(day))
    hour, minute = map(int, clock.split(":"))
    return date.replace(hour=hour, minute=minute, tzinfo=zone).timestamp()
