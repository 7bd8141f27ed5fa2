"""Backends of HAProxy whose names are put together for each client, with and without a map."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from txmux.convert.terms import InexpressibleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.convert.haproxy.place import Files

_NAME = re.compile(
    r"(?P<before>[^%]*)%\[(?P<sample>[\w.]+)(?P<changed>(?:,[^\]]*)?)\](?P<after>[^%]*)"
)
_MAP = re.compile(
    r"map(?:_(?P<method>str|beg|end|dom|reg|sub))?\((?P<file>[^(),]+)(?:,(?P<default>[^(),]*))?\)"
)
_SAMPLES = frozenset({"req.ssl_sni", "req_ssl_sni", "ssl_fc_sni"})


def tests_of(name: str, backends: Iterable[str], files: Files) -> list[tuple[list[str], str]]:
    """Take a name apart.

    Args:
        name: With ``%[...]`` in it.
        backends: The names that there are.
        files: Where maps are.

    Returns:
        Tests, each with the backend of the clients that pass it.

    Raises:
        InexpressibleError: It depends on something else than the name of the server, or on a map that is not here.
    """
    found = _NAME.fullmatch(name)
    if found is None or found["sample"] not in _SAMPLES:
        raise InexpressibleError("a name that is put together for each client has no counterpart")
    before, after, sample = found["before"], found["after"], found["sample"]
    changes = found["changed"].removeprefix(",").replace("lower,", "", 1)
    if changes in {"", "lower"}:
        values = [b[len(before) : len(b) - len(after)] for b in backends if _fits(b, before, after)]
        return [([sample, "-i", "--", v], f"{before}{v}{after}") for v in values]
    mapped = _MAP.fullmatch(changes)
    if mapped is None:
        raise InexpressibleError(f"{changes} has no counterpart")
    try:
        pairs = [line.split(None, 1) for line in files.lines(mapped["file"])]
    except OSError as error:
        why = error.strerror or error
        raise InexpressibleError(f"{mapped['file']} cannot be read here: {why}") from None
    method = mapped["method"] or "str"
    pairs = [pair for pair in pairs if len(pair) == 2]
    if method == "beg":
        pairs.sort(key=lambda pair: -len(pair[0]))
    elif method == "str":
        # Of several lines with the same name the first counts; in any other order they mean the same.
        pairs = sorted(
            {pair[0]: pair for pair in reversed(pairs)}.values(), key=lambda pair: pair[1]
        )
    tests = [
        (
            [sample, "-i", "-m", method, "--", *[key for key, _ in some]],
            f"{before}{value.strip()}{after}",
        )
        for value, some in groupby(pairs, key=lambda pair: pair[1])
    ]
    if mapped["default"]:
        # It is for those who ask for a name; without one there is nothing to look up.
        tests.append(([sample, "-m", "found"], f"{before}{mapped['default']}{after}"))
    return tests


def _fits(name: str, before: str, after: str) -> bool:
    return len(name) > len(before + after) and name.startswith(before) and name.endswith(after)
