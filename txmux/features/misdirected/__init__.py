"""HTTP/2 in TLS that ends here: a request for a name that belongs to another route is answered 421, and its client connects again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from txmux.rules.feature import Feature


def _rows() -> Sequence[Any]:
    from txmux.features.misdirected.rows import ROWS  # noqa: PLC0415 - commands do without them

    return ROWS


FEATURE = Feature(
    "misdirected",
    inside={"h2": "txmux.features.misdirected.requests:watch"},
    rows=_rows,
)
