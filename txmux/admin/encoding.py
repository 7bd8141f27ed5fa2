"""Writes long answers in pieces, so that no other client waits for them, and compresses them by gzip, or answers 304 (RFC 9110, 8.4 and 13.1.2).

The length of a compressed answer can reveal a secret in it that is beside text of an attacker (BREACH, https://breachattack.com). There is
none: tokens are in headers, and what pages of other origins ask for is refused, though the browser adds the token. An operator
may take the text of the rules for one; the page, which has it beside what clients have sent, asks again only for its other parts.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import attrs

from txmux.admin.api.openapi import Schema
from txmux.admin.guard import RefusedError
from txmux.admin.resource import JSON, LACKS, ApiAnswer, Query, check_names, only_values
from txmux.control.broadcast import Listing
from txmux.control.filters import MOST_ROWS, read_limit
from txmux.net.turns import Turns
from txmux.telemetry.formatting import printable_json

_FEW = 20  # items of a list that are written at once
BY_NAME = {
    "limit": Schema(type="integer", minimum=1, maximum=MOST_ROWS),
    "after": Schema(type="string", minLength=1, description="a name in the list"),
}
"""The parameters of a list that may be asked for in parts."""


_LEVEL = 1  # 230 KB of the page become 20 KB in 0.5 ms; level 6 makes 17 KB of it in 2 ms
_WORTH = 1000  # bytes; what is shorter fits into one packet anyhow
_PIECE = 65536  # bytes between two pauses for the reactor
_GZIP = 16 + zlib.MAX_WBITS


def part_of(query: Query, path: str, names: Sequence[str]) -> tuple[slice, dict[str, str]]:
    """Return which of the names are asked for by `BY_NAME`, all without it, and the header that links to the following ones."""
    words = only_values(query.parameters)
    check_names(words, BY_NAME)
    after = words.get("after")
    try:
        start = 0 if after is None else names.index(after) + 1
    except ValueError:
        message = f"after: {after!r} is not in the list now; begin without it"
        raise RefusedError(400, message) from None
    end = start + read_limit(words, len(names), MOST_ROWS) if "limit" in words else len(names)
    if end >= len(names):
        return slice(start, None), {}
    return slice(start, end), link_to_next(path, words, names[end - 1])


def link_to_next(path: str, words: Mapping[str, str], last: str) -> dict[str, str]:
    return {"Link": f'<{path}?{urlencode({**words, "after": last})}>; rel="next"'}


def incomplete(missing: Sequence[str]) -> dict[str, str]:
    return {LACKS: "; ".join(missing)} if missing else {}


async def listed(data: Iterable[Any], headers: Mapping[str, str] | None = None) -> ApiAnswer:
    """Answer with a list or an object of any length; rows may be made while they are written, and a `Listing` has what it lacks in a header."""
    if isinstance(data, Listing):
        headers = {**(headers or {}), **incomplete(data.missing)}
    pieces = await Turns().collect(json_pieces(data))
    return ApiAnswer("".join([*pieces, "\n"]).encode(), JSON, headers=headers or {})


def json_pieces(data: object) -> Iterator[str]:
    if isinstance(data, dict) and _is_long(data):
        before = "{"
        for name, value in data.items():
            yield f"{before}{printable_json(name)}: "
            yield from json_pieces(value)
            before = ", "
        yield "}"
    elif _is_long(data):
        assert isinstance(data, Iterable)  # noqa: S101 - only these are long
        before = "["
        for item in data:
            yield before
            yield from json_pieces(item)
            before = ", "
        yield "[]" if before == "[" else "]"
    else:
        yield printable_json(data)


def _is_long(value: object) -> bool:
    if isinstance(value, Iterator):
        return True
    if isinstance(value, list):
        return len(value) > _FEW or any(map(_is_long, value))
    return isinstance(value, dict) and any(map(_is_long, value.values()))


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
