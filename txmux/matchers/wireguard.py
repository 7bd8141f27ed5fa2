"""The matcher for WireGuard, which tells servers apart by their public key."""

import binascii
import hmac
import re
from collections.abc import Mapping
from hashlib import blake2s

from zope.interface import implementer

from txmux.classes import frozen
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Transport, Verdict

_INITIATION, _RESPONSE, _COOKIE, _DATA = 1, 2, 3, 4
_SIZES = {_INITIATION: 148, _RESPONSE: 92, _COOKIE: 64}
_NAMES = {_INITIATION: "initiation", _RESPONSE: "response", _COOKIE: "cookie", _DATA: "data"}
_SHORTEST_DATA = 16 + 16
_COUNTER_IS_SMALL = slice(14, 16)
"""The high bytes of the counter in a data message, which no session of three minutes comes to."""
_MACS = 2 * 16
_KEY_SIZE = 32
_RESERVED_SIZE = 3
_COUNTS_OF_DNS = b"\0\1\0\0"
"""The counts in a query, where a peer has its index, a random number: a query may have any ID and length."""


@frozen
class _WireguardPredicate:
    labels: tuple[bytes, ...]
    reserved: bytes
    longest: int = 1
    first_bytes: frozenset[int] = frozenset(_NAMES)

    def __call__(self, peeked: Peeked, /) -> Verdict:
        data = peeked.data
        kind = self._kind(data)
        if not kind:
            return Verdict.NO
        if self.labels and not (kind in {_INITIATION, _RESPONSE} and self._is_for(data)):
            return Verdict.NO
        return Verdict.MATCH

    def _kind(self, data: bytes) -> int:
        is_other = data[1:4] != self.reserved or data[4:8] == _COUNTS_OF_DNS
        return 0 if is_other else _kind(data)

    def _is_for(self, data: bytes) -> bool:
        """Return whether ``mac1`` shows that it was made for one of the keys."""
        # Peers that set the reserved bytes do so after the sum is computed.
        summed = data[:1] + bytes(_RESERVED_SIZE) + data[4:-_MACS]
        mac = data[-_MACS : -_MACS // 2]
        return any(
            hmac.compare_digest(blake2s(summed, digest_size=16, key=label).digest(), mac)
            for label in self.labels
        )

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        kind = self._kind(peeked.data)
        return {"message": _NAMES[kind]} if kind else {}


@implementer(IProtocolMatcher)
class WireguardMatcher:
    """Matches the messages of a WireGuard peer ("WireGuard: Next Generation Kernel Network Tunnel", section 5.4).

    That is the initiation with which a tunnel begins, 148 bytes; and the three others, so that a tunnel finds its way
    again when its flow has been forgotten: a response of 92 bytes, a cookie of 64, and data, padded to 16 bytes.

    An initiation, or a response, shows by its ``mac1`` (section 5.4.4) for which public key it was made.
    """

    name = "wireguard"
    summary = "WireGuard, and which server by its public key"
    transports = (Transport.UDP,)
    options = (
        Option(
            "key",
            "public keys of the server, as `wg show` prints them, separated by commas",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        ),
        Option(
            "reserved",
            "the three bytes after the type, as numbers or in base64 (0,0,0)",
            "197,20,8",
            widens=True,
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        keys = options["key"].split(",") if "key" in options else ()
        labels = tuple(blake2s(b"mac1----" + _key(key.strip())).digest() for key in keys)
        return _WireguardPredicate(labels, _reserved(options.get("reserved", "0,0,0")))


wireguard = WireguardMatcher()


def _kind(data: bytes) -> int:
    kind = data[0] if data else 0
    if kind == _DATA:
        whole = len(data) >= _SHORTEST_DATA and len(data) % 16 == 0
        return kind if whole and not any(data[_COUNTER_IS_SMALL]) else 0
    return kind if _SIZES.get(kind) == len(data) else 0


def _key(text: str) -> bytes:
    try:
        key = binascii.a2b_base64(text, strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        key = b""
    if len(key) != _KEY_SIZE:
        message = f"{text!r} is not a public key; write the 44 characters that `wg pubkey` prints"
        raise OptionError("key", message)
    return key


def _reserved(text: str) -> bytes:
    if re.fullmatch("[0-9]{1,3}(?:, ?[0-9]{1,3}){2}", text):
        numbers = [int(number) for number in text.split(",")]
        if max(numbers) <= 0xFF:
            return bytes(numbers)
    elif re.fullmatch("[A-Za-z0-9+/]{4}", text):
        return binascii.a2b_base64(text)
    raise OptionError(
        "reserved",
        f"{text!r} is not three bytes; write them as numbers from 0 to 255, such as 197,20,8, or as base64",
    )
