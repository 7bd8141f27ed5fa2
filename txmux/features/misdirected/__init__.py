"""HTTP/2 in TLS that ends here: a request for a name that belongs to another route is answered 421, and its client connects again."""

from collections.abc import Iterator

from txmux.rules.feature import Feature
from txmux.rules.model import Rules
from txmux.rules.optional import imported_late, named
from txmux.rules.problems import Problem


def _check(rules: Rules) -> Iterator[Problem]:
    if any(route.terminate_tls and "h2" in route.terminate_tls.alpn for route in rules.routes):
        from txmux.features.misdirected.check import shared_certificates  # noqa: PLC0415 - OpenSSL takes a while

        yield from shared_certificates(rules)


FEATURE = Feature(
    "misdirected",
    finds={"check": (_check,)},
    tries=imported_late("txmux.features.misdirected.servers:shared_by_servers"),
    inside={"h2": "txmux.features.misdirected.requests:watch"},
    rows=lambda: named("txmux.features.misdirected.rows:ROWS"),
)
