"""A client behind a NAT, in networks that a test makes and removes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interop.namespaces import Namespace, cable
from tests.programs import require_program

if TYPE_CHECKING:
    from unittest import TestCase

PUBLIC = "192.0.2.10"
"""The address where services are."""
OUTER = ("192.0.2.1", "192.0.2.2")
"""Those that the NAT can give to clients."""

_RULES = """
table ip nat {
    chain out { type nat hook postrouting priority srcnat; }
}
table ip filter {
    # What comes to a port that the NAT has forgotten is dropped without a word.
    chain in { type filter hook input priority filter; ip saddr 192.0.2.0/24 meta l4proto udp drop; }
}
"""


class Nat:
    """Three networks: that of a client, that of the services, and the NAT between them.

    Args:
        test: When it ends, or all tests of the class, they are removed.

    Attributes:
        home: Where the client is.
        public: Where services are, at `PUBLIC`.
    """

    def __init__(self, test: TestCase | type[TestCase]) -> None:
        self._nft, self._conntrack = require_program("nft"), require_program("conntrack")
        self.home, self._middle, self.public = (Namespace(test) for _ in range(3))
        cable(self.home, ["10.9.0.2/24"], self._middle, ["10.9.0.1/24"])
        outer = [f"{address}/24" for address in OUTER]
        cable(self._middle, outer, self.public, [f"{PUBLIC}/24"])
        self.home.ip("route add default via 10.9.0.1")
        self._middle.set("ipv4/ip_forward", "1")
        self._middle.run_lines([f"{self._nft} -f - <<'END'\n{_RULES}\nEND"])

    def give(self, address: str, port: int) -> None:
        """Give the client another address and port, as if the NAT had forgotten the ones before.

        Args:
            address: One of `OUTER`.
            port: The first of a hundred.
        """
        rule = f"ip saddr 10.9.0.0/24 meta l4proto udp snat to {address}:{port}-{port + 99}"
        self._middle.run_lines(
            [
                f"{self._nft} -f - <<'END'\nflush chain ip nat out\nadd rule ip nat out {rule}\nEND",
                f"{self._conntrack} -F 2>/dev/null",
            ]
        )
