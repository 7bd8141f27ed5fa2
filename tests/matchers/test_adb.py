"""The `adb` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.adb import adb

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

EMPTY = bytes(20) + b"\xff" * 4
IDENTITY = b"host::features=shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,apex,abb"


def connect(version: int, largest: int, identity: bytes) -> bytes:
    """Make the message that send_connect of Android's adb makes."""
    numbers = (version, largest, len(identity), sum(identity), 0x4E584E43 ^ 0xFFFFFFFF)
    return b"CNXN" + b"".join(number.to_bytes(4, "little") for number in numbers) + identity


# Made by hand: of the newer and the older version of the protocol, and with the empty message before it.
SAMPLES = (
    connect(0x01000001, 1 << 20, IDENTITY),
    connect(0x01000000, 4096, b"host::\0"),
    EMPTY + connect(0x01000000, 256 << 10, IDENTITY),
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(adb.predicate({}), data)


class ConnectTests(SynchronousTestCase):
    """The header, and how the identity begins."""

    def test_match(self) -> None:
        """The colon behind "host" decides."""
        for sample, at in zip(SAMPLES, (29, 29, 53), strict=True):
            self.assertEqual(said(sample), (MATCH, at))
            self.assertEqual(said(sample[: at - 1]), (NEED_MORE, at - 1))

    def test_lengths(self) -> None:
        """The identity has 5 to 4096 bytes."""
        for length in (5, 255, 256, 4095, 4096):
            self.assertEqual(said(connect(0x01000000, 4096, b"host:".ljust(length))), (MATCH, 29))
        for length, at in ((4, 14), (4097, 14), (1 << 16, 14)):
            start = b"CNXN\0\0\0\1\0\x10\0\0" + length.to_bytes(4, "little")
            self.assertEqual(said(start), (NO, at))

    def test_no(self) -> None:
        """The byte that breaks the message is a no."""
        good = SAMPLES[0]
        for data, at in (
            (b"CNXM", 4),
            (b"CONNECT / HTTP/1.1", 2),
            (b"CNXN\2", 5),
            (b"CNXN\0\0\1", 7),
            (good[:11] + b"\1", 12),
            (good[:20] + b"\xbd", 21),
            (good[:24] + b"device:", 25),
            (bytes(20) + b"\xff\xff\xff\0", 24),
            (EMPTY + EMPTY, 25),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_neighbours(self) -> None:
        """Others that begin with a zero are a no before they are long."""
        self.assertEqual(said(bytes.fromhex("00000008 04d2162f")), (NO, 4))
        self.assertEqual(said(bytes.fromhex("000e38")), (NO, 2))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, rest: sample[:n] + rest,
            st.sampled_from(SAMPLES),
            st.integers(0, 56),
            st.binary(max_size=12),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
