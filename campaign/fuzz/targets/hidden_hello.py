"""Encrypted ClientHellos: as they come, what a client that has the key hides in them, and second ones.

Chance would never seal anything. So of an input whose first byte is odd, the rest is sealed here.
"""

from __future__ import annotations

from typing import Any

from campaign.fuzz.target import Target, cuttings, see
from tests.features.ech.client import HIDDEN, INNER, MadeKey, Sealer, inner, outer_extensions
from tests.wire.hello_builder import records, server_name, versions
from txmux.features.ech.hello import EchKey, EchReader, open_hello
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.preamble import InnerHello

_MADE = MadeKey(secret=b"k" * 32)
_LIMIT = 4096


class _Counted:
    """The private key, which counts exchanges."""

    exchanges = 0

    def exchange(self, public: Any) -> bytes:
        self.exchanges += 1
        return _MADE.private.exchange(public)

    def public_key(self) -> Any:
        return _MADE.private.public_key()


def _read(data: bytes, cuts: list[int]) -> InnerHello | str:
    private: Any = _Counted()
    reader = EchReader({_MADE.key.config.id: EchKey(_MADE.key.config, private)}, _LIMIT)
    found = None
    try:
        for length in cuts:
            found = found or reader.read(data[:length])
        found = found or reader.read(data, last=True)
    except IllegalHelloError as illegal:
        return str(illegal)
    see(private.exchanges <= 1, "a hello costs one exchange", private.exchanges)
    assert found is not None
    # What came after the decision stays behind it.
    return InnerHello(data, found.stream + data[len(found.received) :], found.facts, end=found.end)


def _check(data: bytes) -> None:
    sealer = Sealer(_MADE, secret=b"c" * 32)
    if data[:1] and data[0] & 1:
        stream = records(sealer.hello(data[1:]))
        if data[0] & 2:
            first = Sealer(_MADE, secret=b"c" * 32).hello(inner())
            _, second = open_hello(first, {7: _MADE.key})
            try:
                second.receive(records(sealer.second(data[1:])))
            except IllegalHelloError as illegal:
                see(illegal.alert, "an alert")
    else:
        stream = data[1:]
    whole = _read(stream, [])
    for cuts in cuttings(stream):
        see(_read(stream, cuts) == whole, "the cut decides", cuts)
    if isinstance(whole, str):
        see(data[0] & 1, "only who has the key can be wrong inside")
    elif whole.facts.get("ech") == "inner":
        name = parse_client_hello(whole.stream, None).sni
        see(data[0] & 1 or name == HIDDEN, "a wrong name", name)
    else:
        see(whole.stream == stream, "what is not opened stays")


def _seeds() -> list[bytes]:
    message = Sealer(_MADE, secret=b"c" * 32).hello(inner())
    usual = inner(padding=b"")
    plain = inner(server_name(HIDDEN), versions(0x0304), INNER, padding=b"")
    return [
        *(b"\0" + records(message, size) for size in (16384, 90)),
        *(kind + encoded for kind in (b"\1", b"\3") for encoded in (usual, plain, inner())),
    ]


_WORDS = (
    INNER, outer_extensions(43, 51), outer_extensions(0, 16), b"\xfe\x0d\0\1\1", bytes(8),
    b"\x16\3\1",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1200)
