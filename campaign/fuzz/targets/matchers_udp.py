"""Every matcher for UDP, by what `check_datagrams` checks."""

from __future__ import annotations

from campaign.fuzz.asking import asked, of_datagrams, samples_of
from campaign.fuzz.target import Target, joined, split
from txmux.interfaces import MOST_DATAGRAMS
from txmux.testing import flow_decided


def _check(data: bytes) -> None:
    predicate, flow = asked(of_datagrams(), data)
    datagrams = split(flow, MOST_DATAGRAMS)
    if datagrams and datagrams[0]:
        flow_decided(predicate, datagrams)


def _seeds() -> list[bytes]:
    return [
        line + joined([sample] if isinstance(sample, bytes) else sample)
        for line, sample in samples_of(of_datagrams(), "DATAGRAMS")
    ]


TARGET = Target(
    _check,
    _seeds,
    words=tuple(line.encode("latin-1") + b"\n" for line in of_datagrams()),
    longest=3000,
)
