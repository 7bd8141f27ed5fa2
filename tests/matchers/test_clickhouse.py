"""The `clickhouse` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.clickhouse import clickhouse
from txmux.testing import check_matcher

# Recorded from clickhouse-driver 0.2 for Python; then as clickhouse-client and clickhouse-go write it, made by hand.
SAMPLES: tuple[bytes, ...] = (
    b"\x00\x18ClickHouse python-driver\x14\x0a\xc4\xa9\x03\x00\x07default\x00",
    b"\x00\x11ClickHouse client\x18\x08\xca\xa9\x03\x00\x07default\x00",
    b"\x00\x14clickhouse-go/2.40.1\x02\xc8\x01\xca\xa9\x03\x02db\x01u\x00",
)
ENDS = (31, 24, 28)


class ContractTests(SynchronousTestCase):
    """A name, two numbers, and the revision."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            clickhouse,
            samples=[*zip(SAMPLES, ENDS, strict=True)],
            not_samples=[
                (b"\x01", 1),
                (b"\x00\x02", 2),
                (b"\x00\x80", 2),
                # DNS, SMB and a node of Erlang.
                (b"\x00\x1d\x12", 3),
                (b"\x00\x1dab\x01", 5),
                (b"\x00\x00", 2),
                (b"\x00\x15n\x00\x05", 4),
                (b"\x00\x03abc\x80\x80", 7),
                (b"\x00\x03abc\x80\x00", 7),
                (b"\x00\x03abc\x01\x01\x01", 8),
                (b"\x00\x03abc\x01\x01\xc4\x29", 9),
                (b"\x00\x03abc\x01\x01\xc4\xa9\x04", 10),
                (b"\x00\x03abc\x01\x01\x80\x80\x03", 10),
            ],
            undecided=[*(sample[: end - 1] for sample, end in zip(SAMPLES, ENDS, strict=True))],
        )
