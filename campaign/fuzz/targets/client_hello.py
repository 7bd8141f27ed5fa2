"""The ClientHello of TLS and of SSL 2.0, in records of any size, and the two ways in which it is read."""

from __future__ import annotations

from typing import Any

from campaign.fuzz.target import Target, agree
from tests.matchers.all_samples import all_samples
from txmux.wire.client_hello import HelloReader, parse_client_hello


def _shown(reader: HelloReader) -> Any:
    if reader.hello is None:
        # What came before a malformed record is known, or not yet, by how it came.
        return reader.malformed
    return (
        reader.malformed,
        reader.hello,
        reader.sni,
        reader.alpn,
        reader.version,
        reader.ech,
        reader.ja4(),
    )


def _check(data: bytes) -> None:
    found = agree(parse_client_hello, data, _shown)
    if found.hello:
        # What follows does not matter.
        assert _shown(parse_client_hello(data + b"\x17\3\3\0\1a", None)) == _shown(found)


def _seeds() -> list[bytes]:
    return [one for one in all_samples()["tls"] if len(one) < TARGET.longest]


_WORDS = (
    b"\x16\3\1\2\0", b"\1\0\1\xfc\3\3", b"\0\0\0\x10\0\x0e\0\0\x0bexample.com",
    b"\0\x10\0\x0e\0\x0c\2h2\x08http/1.1", b"\0\x2b\0\5\4\3\4\3\3", b"\xfe\x0d", b"\x0a\x0a",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=2048)
