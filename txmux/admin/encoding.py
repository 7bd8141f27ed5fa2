"""Compresses answers by gzip, and answers 304 to clients that have them already (RFC 9110, 8.4 and 13.1.2).

The length of a compressed answer can reveal a secret in it that is beside text of an attacker (BREACH, https://breachattack.com). There is
none: tokens are in headers, and what pages of other origins ask for is refused, though the browser adds the token. An operator
may take the text of the rules for one; the page, which has it beside what clients have sent, asks again only for its other parts.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping

import attrs

from txmux.admin.resource import ApiAnswer
from txmux.net.turns import Turns

_LEVEL = 1  # 230 KB of the page become 20 KB in 0.5 ms; level 6 makes 17 KB of it in 2 ms
_WORTH = 1000  # bytes; what is shorter fits into one packet anyhow
_PIECE = 65536  # bytes between two pauses for the reactor
_GZIP = 16 + zlib.MAX_WBITS


async def encoded(answer: ApiAnswer, method: str, headers: Mapping[str, str]) -> ApiAnswer:
    """Return what is sent for an answer to a request with these headers."""
    if answer.stream is not None or not answer.body:
        return answer
    turns = Turns()
    added = {**answer.headers, "Vary": "Accept-Encoding"}
    if method in {"GET", "HEAD"} and answer.status == 200:
        # Weak, since it is the same with gzip and without.
        added["ETag"] = tag = f'W/"{await digest(answer.body, turns)}"'
        if _is_among(tag, headers.get("if-none-match", "")):
            return attrs.evolve(answer, body=b"", status=304, headers=added)
    body = answer.body
    if len(body) >= _WORTH and takes_gzip(headers.get("accept-encoding", "")):
        added["Content-Encoding"] = "gzip"
        body = await _gzip(body, turns)
    return attrs.evolve(answer, body=body, headers=added)


async def digest(data: bytes, turns: Turns) -> str:
    hasher = hashlib.blake2b(digest_size=12)
    for piece in _pieces(data):
        hasher.update(piece)
        await turns.pause()
    return hasher.hexdigest()


async def _gzip(data: bytes, turns: Turns) -> bytes:
    packing, packed = zlib.compressobj(_LEVEL, wbits=_GZIP), []
    for piece in _pieces(data):
        packed.append(packing.compress(piece))
        await turns.pause()
    return b"".join([*packed, packing.flush()])


def _pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _is_among(tag: str, written: str) -> bool:
    listed = {entry.strip().removeprefix("W/") for entry in written.split(",")}
    return tag.removeprefix("W/") in listed or "*" in listed


def takes_gzip(accepted: str) -> bool:
    weights = {}
    for entry in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in entry.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights[coding] = weight.strip("0.") != ""
    for coding in ("gzip", "x-gzip", "*"):
        if coding in weights:
            return weights[coding]
    return False
