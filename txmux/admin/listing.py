"""Writes long documents as JSON in pieces, so that nobody else waits for them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from txmux.admin.resource import JSON, ApiAnswer
from txmux.net.turns import Turns

_FEW = 20  # items of a list that are written at once


async def listed(data: Iterable[Any], headers: Mapping[str, str] | None = None) -> ApiAnswer:
    """Answer with a list or an object of any length; rows may be made while they are written."""
    pieces = await Turns().collect(json_pieces(data))
    return ApiAnswer("".join([*pieces, "\n"]).encode(), JSON, headers=headers or {})


def json_pieces(data: object) -> Iterator[str]:
    if isinstance(data, dict) and _is_long(data):
        before = "{"
        for name, value in data.items():
            yield f"{before}{json.dumps(name)}: "
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
        yield json.dumps(data)


def _is_long(value: object) -> bool:
    if isinstance(value, Iterator):
        return True
    if isinstance(value, list):
        return len(value) > _FEW or any(map(_is_long, value))
    return isinstance(value, dict) and any(map(_is_long, value.values()))
