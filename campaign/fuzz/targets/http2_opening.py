"""What a client of HTTP/2 says up to its first request."""

from __future__ import annotations

from typing import Any

from campaign.fuzz.target import Target, agree
from tests.matchers.all_samples import all_samples
from txmux.wire.http2_opening import PREFACE, Opening, parse_opening


def _shown(opening: Opening) -> Any:
    return opening.refused or (opening.settings, opening.stream, opening.fields)


def _check(data: bytes) -> None:
    # Nothing is to be found before the preface is there.
    data = PREFACE + data
    found = agree(parse_opening, data, _shown)
    for name, value in (found.fields or {}).items():
        assert isinstance(name, str)
        assert isinstance(value, str)


def _seeds() -> list[bytes]:
    samples = (*all_samples()["http2"], *all_samples()["grpc"])
    return [one.removeprefix(PREFACE) for one in samples]


_WORDS = (
    b"\0\0\0\4\0\0\0\0\0", b"\0\0\4\x08\0\0\0\0\0\0\0\xff\xff", b"\0\0\5\2\0\0\0\0\1",
    b"\0\0\x10\1\5\0\0\0\1", b"\0\0\x10\x09\4\0\0\0\1", b"\x82\x84\x86\x41",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1024)
