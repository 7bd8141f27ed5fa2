"""HTTP/2 in TLS that ends here: a request for a name that belongs to another route is answered 421, and its client connects again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from txmux.rules.feature import Feature
from txmux.rules.model import Rules
from txmux.rules.problems import Problem


def _rows() -> Sequence[Any]:
    from txmux.features.misdirected.rows import ROWS  # noqa: PLC0415 - commands do without them

    return ROWS


def _check(rules: Rules) -> Iterator[Problem]:
    if any(route.terminate_tls and "h2" in route.terminate_tls.alpn for route in rules.routes):
        from txmux.features.misdirected.check import shared_certificates  # noqa: PLC0415 - OpenSSL takes a while

        yield from shared_certificates(rules)


async def _connecting(rules: Rules, reactor: Any) -> Sequence[Problem]:
    from txmux.features.misdirected.servers import shared_by_servers  # noqa: PLC0415 - as above

    return await shared_by_servers(rules, reactor)


FEATURE = Feature(
    "misdirected",
    check=(_check,),
    tries=_connecting,
    inside={"h2": "txmux.features.misdirected.requests:watch"},
    rows=_rows,
)
