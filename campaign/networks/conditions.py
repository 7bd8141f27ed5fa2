"""How bad a network is."""

from __future__ import annotations

import sys

import attrs

from tests.interop.children import Child
from tests.interop.namespaces import Namespace
from tests.programs import require_program

_BURST = "32kb"
_LONGEST_QUEUE = "300ms"
_QUEUE = "0"
# Packets that leave count for how much a socket of TCP may send, so they would hold it up; those that arrive do not.
_QUEUED = f"-A INPUT -i lo -j NFQUEUE --queue-num {_QUEUE} --queue-bypass"


@attrs.frozen
class Condition:
    """What is wrong with a network.

    Attributes:
        lost: Of 100 packets that arrive in a namespace, so many are dropped.
        mtu: The longest packet of its interfaces, in bytes.
        rate: Bits a second that leave an interface, as tc writes them; without it, as many as may be.
        least: The shortest delay of a packet, in milliseconds.
        most: The longest, but for those that are overtaken.
        overtaken: Of 100 packets, those that take four times the longest delay.
        twice: Of 100 packets, those that arrive twice.
        eats: Packets longer than this many bytes are dropped without a word; the systems probe for what passes.
    """

    lost: int = 0
    mtu: int = 1500
    rate: str = ""
    least: float = 0.0
    most: float = 0.0
    overtaken: float = 0.0
    twice: float = 0.0
    eats: int = 0

    def lines(self, interface: str) -> list[str]:
        """Give the commands, run in a namespace, that make what arrives by an interface lossy and what leaves it slow."""
        found = []
        if self.lost:
            found += lose(interface, self.lost)
        if self.rate:
            tc = require_program("tc")
            bucket = f"tbf rate {self.rate} burst {_BURST} latency {_LONGEST_QUEUE}"
            found.append(f"{tc} qdisc add dev {interface} root {bucket}")
        return found

    def spoil_itself(self, namespace: Namespace, only: str = "") -> None:
        """Make the loopback interface of a namespace like this, as far as one interface alone can be.

        Args:
            namespace: The namespace.
            only: Which packets get lost, as nftables has it; otherwise all.
        """
        # Without the last two, packets of 64 KiB would go by as if there was no MTU.
        namespace.ip(f"link set lo mtu {self.mtu} gso_max_segs 1")
        lines = attrs.evolve(self, lost=0).lines("lo")
        if self.lost:
            lines += lose("lo", self.lost, only)
        if lines:
            namespace.run_lines(lines)
        if self.most:
            self.hold(namespace)

    def hold(self, namespace: Namespace) -> Child:
        """Start the program that holds each packet of the loopback interface for its time."""
        options = [f"--{name}={getattr(self, name)}" for name in ("least", "most", "overtaken")]
        module = "campaign.networks.queued"
        child = Child(
            *(*namespace.command, sys.executable, "-m", module, _QUEUE, *options), stdin=True
        )
        namespace.own(child).wait_for("^made$")
        namespace.run_lines(
            [f"{require_program(name)} {_QUEUED}" for name in ("iptables", "ip6tables")]
        )
        return child


def lose(interface: str, percent: int, only: str = "") -> list[str]:
    """Give the commands that drop packets that arrive by an interface, by chance."""
    nft = require_program("nft")
    chain = "inet bad in"
    return [
        f"{nft} add table inet bad",
        f"{nft} add chain {chain} '{{ type filter hook input priority filter; }}'",
        f"{nft} add rule {chain} iifname {interface} {only} numgen random mod 100 '<' {percent} drop",
    ]


CONDITIONS = {
    "good": Condition(),
    "loss": Condition(lost=3),
    "some loss": Condition(lost=1),
    "narrow": Condition(mtu=1280),
    "tiny": Condition(mtu=576),
    "slow": Condition(rate="8mbit"),
    "brisk": Condition(rate="400mbit"),
    "crooked": Condition(least=1, most=8, overtaken=5, twice=2),
    "late": Condition(least=1, most=5, overtaken=5),
    "hole": Condition(eats=1300),
    "all": Condition(lost=1, mtu=1280, rate="20mbit", least=1, most=4, overtaken=3, twice=1),
}
"""The networks, by name."""
