"""How bad a network is: what is wrong with the loopback interface of a namespace, by which all packets of the campaign go."""

from __future__ import annotations

import sys

import attrs

from tests.interop.children import Child
from tests.interop.namespaces import Namespace
from tests.programs import require_program

_QUEUE = "0"
# Packets that leave count for how much a socket of TCP may send, so they would hold it up; those that arrive do not.
_QUEUED = f"-A INPUT -i lo -j NFQUEUE --queue-num {_QUEUE} --queue-bypass"


@attrs.frozen
class Condition:
    """What is wrong with a network.

    Attributes:
        lost: Of 100 packets, those that are dropped; none of them is a reset, which nobody sends again.
        mtu: The longest packet, in bytes.
        rate: Bits a second, as tc writes them; without it, as many as may be.
        least: The shortest delay of a packet, in milliseconds.
        most: The longest, but for those that are overtaken.
        overtaken: Of 100 packets, those that take four times the longest delay.
    """

    lost: int = 0
    mtu: int = 1500
    rate: str = ""
    least: float = 0.0
    most: float = 0.0
    overtaken: float = 0.0

    def spoil(self, namespace: Namespace) -> None:
        # Without the last two, packets of 64 KiB would go by as if there was no MTU.
        namespace.ip(f"link set lo mtu {self.mtu} gso_max_segs 1")
        lines = []
        if self.rate:
            bucket = f"tbf rate {self.rate} burst 32kb latency 300ms"
            lines.append(f"{require_program('tc')} qdisc add dev lo root {bucket}")
        if self.lost:
            lines += filtered(
                "input", "tcp flags rst accept", f"numgen random mod 100 '<' {self.lost} drop"
            )
        if lines:
            namespace.run_lines(lines)
        if self.most:
            self.hold(namespace)

    def hold(self, namespace: Namespace) -> Child:
        options = [f"--{name}={getattr(self, name)}" for name in ("least", "most", "overtaken")]
        command = (sys.executable, "-m", "campaign.networks.late", _QUEUE, *options)
        child = Child(*namespace.command, *command, stdin=True)
        namespace.own(child).wait_for("^made$")
        namespace.run_lines(
            [f"{require_program(name)} {_QUEUED}" for name in ("iptables", "ip6tables")]
        )
        return child


def filtered(hook: str, *rules: str) -> list[str]:
    """Return the commands for rules of nftables about the packets at a hook."""
    nft, chain = require_program("nft"), f"inet bad {hook}"
    return [
        f"{nft} add table inet bad",
        f"{nft} add chain {chain} '{{ type filter hook {hook} priority filter; }}'",
        *(f"{nft} add rule {chain} {rule}" for rule in rules),
    ]


CONDITIONS = {
    "loss": Condition(lost=3),
    "narrow": Condition(mtu=1280),
    "tiny": Condition(mtu=576),
    "slow": Condition(rate="40mbit"),
    "late": Condition(least=1, most=5, overtaken=5),
    "all": Condition(lost=1, mtu=1280, rate="100mbit", least=1, most=4, overtaken=3),
}
