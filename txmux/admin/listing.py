"""Writes long documents as JSON in pieces, so that no other client waits for them, or the part of a list that is asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

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


def part_of(query: Query, path: str, names: Sequence[str]) -> tuple[slice, dict[str, str]]:
    """Return which of the names are asked for by `BY_NAME`, all without it, and the header that links to the following ones."""
    words = only_values(query.parameters)
    check_names(words, BY_NAME)
    after = words.get("after")
    try:
        start = 0 if after is None else names.index(after) + 1
    except ValueError:
        raise RefusedError(
            400, f"after: {after!r} is not in the list now; begin without it"
        ) from None
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
