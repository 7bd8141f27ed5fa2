"""The `ldap` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.ldap import ldap

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

BIND = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00"
LONG_BIND = (
    b"\x30\x84\x00\x00\x00\x10\x02\x01\x05\x60\x84\x00\x00\x00\x07\x02\x01\x03\x04\x00\x80\x00"
)
START_TLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

# BIND and START_TLS are recorded from ldapsearch of OpenLDAP 2.5.13, with -x and with -xZ; the others are written after
# RFC 4511, in long form as Windows does it.
SAMPLES: tuple[bytes, ...] = (
    BIND,
    LONG_BIND,
    START_TLS,
    b"\x30\x82\x01\x0a\x02\x02\x03\xe8\x63\x82\x01\x02\x04\x00\x0a\x01\x00",
    b"\x30\x05\x02\x01\x02\x42\x00",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(ldap.predicate({}), data)


class MessageTests(SynchronousTestCase):
    """What begins a connection."""

    def test_match(self) -> None:
        """The length of the request is a match."""
        for sample, at in zip(SAMPLES, (7, 15, 7, 12, 7), strict=True):
            self.assertEqual(said(sample), (MATCH, at))
            self.assertEqual(said(sample[: at - 1]), (NEED_MORE, at - 1))

    def test_no(self) -> None:
        """The first byte that is off is a no."""
        for data, at in (
            (b"\x31", 1),
            (b"\x30\x80", 2),
            (b"\x30\x85", 2),
            (b"\x30\x04", 2),
            (b"\x30\x84\x01", 3),
            (b"\x30\x82\x00\x04", 4),
            (b"\x30\x0c\x04", 3),
            (b"\x30\x0c\x02\x05", 4),
            (b"\x30\x0c\x02\x00", 4),
            (b"\x30\x0c\x02\x01\x00", 5),
            (b"\x30\x0c\x02\x01\x80", 5),
            (b"\x30\x0c\x02\x01\x01\x61", 6),
            (b"\x30\x0c\x02\x01\x01\x60\x08", 7),
            (b"\x30\x0c\x02\x01\x01\x60\x81\x07", 8),
            (b"\x30\x05\x02\x04\x00\x00\x00\x01\x60\x00", 10),
        ):
            self.assertEqual(said(data), (NO, at), data)

    def test_neighbours(self) -> None:
        """tinc, git, SNMP and digits begin alike."""
        for data, at in (
            (b"0 name 17.7\n", 3),
            (b"0032git-upload-pack /a", 3),
            (b"\x30\x26\x02\x01\x01\x04\x06public", 6),
            (b"\x30\x26\x02\x01\x00\x04\x06public", 5),
            (b"\x30\x3a\x02\x01\x03\x30\x0f", 6),
        ):
            self.assertEqual(said(data), (NO, at))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=40)
        | st.builds(
            lambda sample, n, tail: sample[:n] + tail,
            st.sampled_from(SAMPLES),
            st.integers(0, 60),
            st.binary(max_size=40),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
