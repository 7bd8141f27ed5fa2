from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts
from tests.support.examples import scaled
from txmux.interfaces import Peeked
from txmux.matchers.postgres import postgres
from txmux.testing import calls_in, decided


def startup(*strings: bytes, minor: int = 0, end: bytes = b"\0") -> bytes:
    body = bytes([0, 3, 0, minor]) + b"".join(string + b"\0" for string in strings) + end
    return (4 + len(body)).to_bytes(4, "big") + body


def cancel(key: bytes) -> bytes:
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
    GSSENC_REQUEST, cancel(bytes(4)), cancel(bytes(32)), startup(b"user", b"alice", minor=2),
    startup(b"_pq_.compression", b"on", b"user", b"alice"),
)  # fmt: skip

REQUESTS = (SSL_REQUEST, GSSENC_REQUEST, cancel(bytes(4)), cancel(bytes(256)))
MATCHED = (
    # The code of a request is a match.
    *((request, 8) for request in REQUESTS),
    # The name of the first parameter is one, with the NUL behind it, in any minor version.
    (PSQL, 13), (startup(b"user", b"a", minor=2), 13),
    (startup(b"_pq_.x", b"1", b"user", b"a"), 15), (startup(b"a" * 128, b"1"), 137),
    (startup(b"_pq_.a b\xc3\xa9", b"1", b"user", b"a"), 19),
    (startup(b"_pq_." + b"a" * 200, b"1", b"user", b"a"), 137),
)  # fmt: skip
REFUSED = (
    (b"\x01", 1), (b"\x00\x00\x28", 3), (b"\x00\x00\x27\x15", 4), (b"\x00\x00\x00\x07", 4),
    (b"\x00\x00\x00\x0b", 4), (b"\x00\x00\x00\x08\x00", 5),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2e", 8), (b"\x00\x00\x00\x10\x04\xd2\x16\x2f", 8),
    (b"\x00\x00\x00\x0f\x04\xd2", 5), (b"\x00\x00\x01\x0d\x04\xd2", 5),
    (b"\x00\x00\x00\x38\x00\x02", 6), (b"\x00\x00\x00\x38\x00\x03\x00\x00\x00", 9),
    (b"\x00\x00\x00\x38\x00\x03\x00\x00us er", 11),
    (b"\x00\x00\x00\x0c\x00\x03\x00\x00user\x00", 11), (startup(b"a" * 129, b"1"), 137),
    (b"\x00\x00\x00\x2b\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07rdkafka", 6),
    (b"\x00\x00\x00\x1b\x00\x03\x00\x00\x00\x00\x00\x01\x00\x07rdkafka", 9),
    (b"\x00\x00\x00\x1b\x00\x03\x00\x02\x00\x00\x00\x01\x00\x07rdkafka", 9),
    (b"\x00\x00\x00\x2d\x00\x00\x00\x00", 6),  # ZooKeeper
    (b"\x00\x00\x00\xd0\xfeSMB", 5),
    (b"\x00\x01\x00\x00\x21\x12\xa4\x42", 2),  # STUN
    (b"\x00\x4a\x00\x00\x01\x00\x00\x00", 2),  # TNS
    (b"\x00\x0e\x38", 2),  # OpenVPN
    (bytes(24), 4),  # adb,
)  # fmt: skip
ALICE = startup(b"user", b"alice")
NO_DATABASE = startup(b"database", b"", b"user", b"alice")
TWICE = startup(b"user", b"a", b"user", b"b")
LONG_NAMES = startup(b"user", b"u" * 64, b"database", b"d" * 100)
NO_USER = startup(b"options", b"-c x=y")
# What PostgreSQL 15 takes, too: names of any length and bytes, and any last byte.
LOOSE = (
    startup(b"_pq_." + b"a" * 200, b"1", b"user", b"alice"), startup(b"a" * 200 + b".b", b"1", b"user", b"alice"),
    startup(b"user", b"alice", b"_pq_.a b\xc3\xa9", b"1"), startup("\xe9.b".encode(), b"1", b"user", b"alice"),
    startup(b"user", b"alice", end=b"x"),
)  # fmt: skip
JURGEN = startup(b"user", "jürgen".encode())
# A packet has at most 10000 bytes behind its length.
LONGEST = startup(b"user", b"alice", b"options", b"o" * 9975)
MALFORMED = ((startup(b"user", b"a", b"", b"b"), 16), (startup(b"user", b"a", b"database"), 24))
VERDICTS = (
    # The end of the packet is a match if all fit.
    ("user=alice", PSQL, MATCH, 56), ("user=bob,al* database=shop application=p*", PSQL, MATCH, 56),
    ("application=psql", PSQL + b"p", MATCH, 56), ("user=alice", PSQL[:55], NEED_MORE, 55),
    ("user=alice", LONGEST, MATCH, 10_004),
    # The end of the packet is a no if a value does not fit.
    ("user=bob", PSQL, NO, 56), ("user=alice database=other", PSQL, NO, 56),
    ("application=Psql", PSQL, NO, 56),
    # Of several values, the server takes the last one, and of a long one the first 63 bytes.
    ("user=b", TWICE, MATCH, len(TWICE)),
    ("user=a", TWICE, NO, len(TWICE)),
    (f"user={'u' * 63} database={'d' * 63}", LONG_NAMES, MATCH, len(LONG_NAMES)),
    (f"database={'d' * 64}", LONG_NAMES, NO, len(LONG_NAMES)),
    # Requests tell nothing of a user, so they are a no.
    ("user=*", SSL_REQUEST, NO, 8), ("database=*", GSSENC_REQUEST, NO, 8),
    ("application=*", cancel(bytes(4)), NO, 8),
    # Without a database, or with an empty one, it is that of the user's name.
    *(("database=alice", one, MATCH, len(one)) for one in (ALICE, NO_DATABASE)),
    *(("database=shop", one, NO, len(one)) for one in (ALICE, NO_DATABASE)),
    # Any pattern wants a value to be there.
    ("application=*", ALICE, NO, len(ALICE)), ("user=*", NO_USER, NO, len(NO_USER)),
    ("database=*", NO_USER, NO, len(NO_USER)),
    # A packet that is not as it ought to be is a no where that shows.
    *(("user=*", packet, NO, at) for packet, at in MALFORMED),
    *(("", packet, MATCH, 13) for packet, _ in MALFORMED),
    *(("database=alice", one, MATCH, len(one)) for one in LOOSE),
    *(("database=shop", one, NO, len(one)) for one in LOOSE),
    # Names in UTF-8 fit as they are written.
    ("user=j?rgen", JURGEN, MATCH, len(JURGEN)), ("user=~j.*n", JURGEN, MATCH, len(JURGEN)),
    ("user=?", startup(b"user", b"\xff"), MATCH),
)  # fmt: skip
TRIED = ("user=a*", "database=shop", "application=?sql")
TRIED_ON = (PSQL, SSL_REQUEST, NO_DATABASE, startup(b"user", b"alice", b"database", b"user"))
UNUSABLE = (("database=a,,b", "database: "),)
OF_PSQL = {"user": "alice", "database": "shop", "application": "psql"}
FACTS: Facts = (
    ("", PSQL, OF_PSQL), ("user=bob", PSQL, OF_PSQL), ("", PSQL[:20], {"user": "alice"}),
    ("", PSQL[:18], {}),
    ("", startup(b"user", b"\xe9\n"), {"user": r"\xe9\n", "database": r"\xe9\n"}),
    ("", SSL_REQUEST, {}), ("", b"GET /", {}),
)  # fmt: skip


class PropertyTests(SynchronousTestCase):
    def test_to_read_a_packet_byte_by_byte_takes_time_in_proportion(self) -> None:
        predicate = postgres.predicate({"user": "alice"})

        def ask(length: int) -> None:
            peeked = None
            for end in range(1, length):
                peeked = Peeked(LONGEST[:end], peeked)
                predicate(peeked)

        self.assertLess(calls_in(lambda: ask(4000)), 2.2 * calls_in(lambda: ask(2000)))

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.sampled_from([{}, {"user": "a*"}, {"database": "shop"}, {"application": "?sql"}]),
        st.lists(st.binary(max_size=4) | st.sampled_from([b"user", b"database", b"alice"])),
        st.integers(0, 60),
    )
    def test_any_strings_however_they_are_cut(
        self, options: dict[str, str], strings: list[bytes], end: int
    ) -> None:
        data = startup(*strings)
        decided(postgres.predicate(options), data)
        decided(postgres.predicate(options), data[:end])
