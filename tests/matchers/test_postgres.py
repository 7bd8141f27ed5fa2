"""The `postgres` matcher: without options every first packet will do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import facts_of, verdicts_of
from tests.support.examples import scaled
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.postgres import postgres
from txmux.testing import calls_in

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE


def startup(*strings: bytes, minor: int = 0, end: bytes = b"\0") -> bytes:
    """Write a StartupMessage as it travels."""
    body = bytes([0, 3, 0, minor]) + b"".join(string + b"\0" for string in strings) + end
    return (4 + len(body)).to_bytes(4, "big") + body


def cancel(key: bytes) -> bytes:
    """Write a CancelRequest as it travels."""
    body = b"\x04\xd2\x16\x2e\x00\x00\x12\x34" + key
    return (4 + len(body)).to_bytes(4, "big") + body


PSQL = (
    b"\x00\x00\x00\x38\x00\x03\x00\x00"
    b"user\x00alice\x00database\x00shop\x00application_name\x00psql\x00\x00"
)
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
GSSENC_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x30"

SAMPLES = (
    # Recorded from psql 15.18, with sslmode=disable and sslmode=prefer.
    PSQL,
    SSL_REQUEST,
    # Written after the specification.
    GSSENC_REQUEST,
    cancel(bytes(4)),
    cancel(bytes(32)),
    startup(b"user", b"alice", minor=2),
    startup(b"_pq_.compression", b"on", b"user", b"alice"),
)

said = verdicts_of(postgres)
learnt = facts_of(postgres)
REQUESTS = (SSL_REQUEST, GSSENC_REQUEST, cancel(bytes(4)), cancel(bytes(256)))
MATCHED = (
    # The code of a request is a match.
    *((request, 8) for request in REQUESTS),
    # The name of the first parameter is one, with the NUL behind it, in any minor
    # version.
    (PSQL, 13),
    (startup(b"user", b"a", minor=2), 13),
    (startup(b"_pq_.x", b"1", b"user", b"a"), 15),
    (startup(b"a" * 128, b"1"), 137),
)
REFUSED = (
    # The first byte that is off is a no.
    (b"\x01", 1),
    (b"\x00\x00\x28", 3),
    (b"\x00\x00\x27\x11", 4),
    (b"\x00\x00\x00\x07", 4),
    (b"\x00\x00\x00\x0b", 4),
    (b"\x00\x00\x00\x08\x00", 5),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2e", 8),
    (b"\x00\x00\x00\x10\x04\xd2\x16\x2f", 8),
    (b"\x00\x00\x00\x0f\x04\xd2", 5),
    (b"\x00\x00\x01\x0d\x04\xd2", 5),
    (b"\x00\x00\x00\x38\x00\x02", 6),
    (b"\x00\x00\x00\x38\x00\x03\x00\x00\x00", 9),
    (b"\x00\x00\x00\x38\x00\x03\x00\x00us er", 11),
    (b"\x00\x00\x00\x0c\x00\x03\x00\x00user\x00", 11),
    (startup(b"a" * 129, b"1"), 137),
    # Others begin with 00, too.
    (b"\x00\x00\x00\x2b\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07rdkafka", 6),
    (b"\x00\x00\x00\x1b\x00\x03\x00\x00\x00\x00\x00\x01\x00\x07rdkafka", 9),
    (b"\x00\x00\x00\x1b\x00\x03\x00\x02\x00\x00\x00\x01\x00\x07rdkafka", 9),
    (b"\x00\x00\x00\x2d\x00\x00\x00\x00", 6),  # ZooKeeper
    (b"\x00\x00\x00\xd0\xfeSMB", 5),
    (b"\x00\x01\x00\x00\x21\x12\xa4\x42", 2),  # STUN
    (b"\x00\x4a\x00\x00\x01\x00\x00\x00", 2),  # TNS
    (b"\x00\x0e\x38", 2),  # OpenVPN
    (bytes(24), 4),  # adb,
)


class OptionTests(SynchronousTestCase):
    """``user=``, ``database=`` and ``application=`` need the StartupMessage."""

    def test_match(self) -> None:
        """The end of the packet is a match if all fit."""
        self.assertEqual(said(PSQL, user="alice"), (MATCH, 56))
        self.assertEqual(said(PSQL, user="bob,al*", database="shop", application="p*"), (MATCH, 56))
        self.assertEqual(said(PSQL + b"p", application="psql"), (MATCH, 56))
        self.assertEqual(said(PSQL[:55], user="alice"), (NEED_MORE, 55))

    def test_no(self) -> None:
        """The end of a value that does not fit is a no."""
        self.assertEqual(said(PSQL, user="bob"), (NO, 19))
        self.assertEqual(said(PSQL, user="alice", database="other"), (NO, 33))
        self.assertEqual(said(PSQL, application="Psql"), (NO, 55))

    def test_requests(self) -> None:
        """Requests tell nothing of a user, so they are a no."""
        self.assertEqual(said(SSL_REQUEST, user="*"), (NO, 8))
        self.assertEqual(said(GSSENC_REQUEST, database="*"), (NO, 8))
        self.assertEqual(said(cancel(bytes(4)), application="*"), (NO, 8))

    def test_no_database(self) -> None:
        """Without a database, or with an empty one, it is that of the user's name."""
        for packet in (startup(b"user", b"alice"), startup(b"database", b"", b"user", b"alice")):
            self.assertEqual(said(packet, database="alice"), (MATCH, len(packet)))
            self.assertEqual(said(packet, database="shop"), (NO, len(packet)))

    def test_missing(self) -> None:
        """Any pattern wants a value to be there."""
        packet = startup(b"user", b"alice")
        self.assertEqual(said(packet, application="*"), (NO, len(packet)))
        packet = startup(b"options", b"-c x=y")
        self.assertEqual(said(packet, user="*"), (NO, len(packet)))
        self.assertEqual(said(packet, database="*"), (NO, len(packet)))

    def test_malformed(self) -> None:
        """A packet that is not as it ought to be is a no where that shows."""
        for packet, at in (
            (startup(b"user", b"a", end=b"x"), 16),
            (startup(b"user", b"a", b"user", b"b"), 22),
            (startup(b"user", b"a", b"", b"b"), 16),
            (startup(b"user", b"a", b"database"), 24),
        ):
            self.assertEqual(said(packet, user="*"), (NO, at), packet)
            self.assertEqual(said(packet), (MATCH, 13))

    def test_other_alphabets(self) -> None:
        """Names in UTF-8 fit as they are written."""
        packet = startup(b"user", "jürgen".encode())
        self.assertEqual(said(packet, user="j?rgen"), (MATCH, len(packet)))
        self.assertEqual(said(packet, user="~j.*n"), (MATCH, len(packet)))
        self.assertEqual(said(startup(b"user", b"\xff"), user="?")[0], MATCH)

    def test_longest(self) -> None:
        """A packet has at most 10000 bytes, and reading it byte by byte takes time in proportion."""
        packet = startup(b"user", b"alice", b"options", b"o" * 9971)
        self.assertEqual(len(packet), 10_000)
        self.assertEqual(said(packet, user="alice"), (MATCH, 10_000))
        predicate = postgres.predicate({"user": "alice"})

        def ask(length: int) -> None:
            peeked = None
            for end in range(1, length):
                peeked = Peeked(packet[:end], peeked)
                predicate(peeked)

        self.assertLess(calls_in(lambda: ask(4000)), 2.2 * calls_in(lambda: ask(2000)))

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        error = self.assertRaises(OptionError, postgres.predicate, {"database": "a,,b"})
        self.assertIn("database: ", str(error))


class LearntTests(SynchronousTestCase):
    """What goes to the access log."""

    def test_facts(self) -> None:
        """User, database and application are learnt as far as they are there, whatever the options."""
        everything = {"user": "alice", "database": "shop", "application": "psql"}
        self.assertEqual(learnt(PSQL), everything)
        self.assertEqual(learnt(PSQL, user="bob"), everything)
        self.assertEqual(learnt(PSQL[:20]), {"user": "alice"})
        self.assertEqual(learnt(PSQL[:18]), {})
        self.assertEqual(
            learnt(startup(b"user", b"\xe9\n")), {"user": r"\xe9\n", "database": r"\xe9\n"}
        )
        self.assertEqual(learnt(SSL_REQUEST), {})
        self.assertEqual(learnt(b"GET /"), {})


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.sampled_from([{}, {"user": "a*"}, {"database": "shop"}, {"application": "?sql"}]),
        st.binary(max_size=40)
        | st.builds(
            lambda sample, n, tail: sample[:n] + tail,
            st.sampled_from(SAMPLES),
            st.integers(0, 60),
            st.binary(max_size=40),
        )
        | st.lists(st.binary(max_size=4) | st.sampled_from([b"user", b"database", b"alice"])).map(
            lambda strings: startup(*strings)
        ),
    )
    def test_any_bytes(self, options: dict[str, str], data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data, **options)
