"""Every matcher for TCP, by what `check_matcher` checks: the same answer however a stream is cut, final, and within limits."""

from __future__ import annotations

from campaign.fuzz.asking import asked, of_streams, samples_of
from campaign.fuzz.target import Target
from txmux.testing import decided

_LONGEST = 400


def _check(data: bytes) -> None:
    predicate, stream = asked(of_streams(), data)
    if stream:
        decided(predicate, stream)


def _seeds() -> list[bytes]:
    return [
        line + sample[:_LONGEST]
        for line, sample in samples_of(of_streams(), "SAMPLES")
        if isinstance(sample, bytes)
    ]


TARGET = Target(
    _check,
    _seeds,
    words=tuple(line.encode("latin-1") + b"\n" for line in of_streams()),
    longest=600,
)
