"""A path from clients over a bad network to txmux, and over another one to the servers."""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

import attrs

from campaign.networks.conditions import Condition
from tests.interop.children import Child, output_of
from tests.interop.namespaces import Namespace
from tests.programs import require_program
from tests.support.undone import Undone

MUX, CLIENT = "192.0.2.1", "192.0.2.2"
"""The addresses of txmux and of the clients on the first cable."""
SERVER = "198.51.100.2"
"""Where txmux finds the servers: on the second cable, whose other end leads to 127.0.0.1 of their network."""

_MUX_TO_SERVER = "198.51.100.1"
_numbers = itertools.count()


@attrs.frozen
class Cable:
    """A cable between two namespaces.

    Attributes:
        ends: The names of its interfaces.
        child: What passes the packets on.
    """

    ends: tuple[str, str]
    child: Child


def crooked_cable(
    undone: Undone,
    ends: tuple[tuple[Namespace, str], tuple[Namespace, str]],
    condition: Condition,
    seed: int,
) -> Cable:
    """Connect two namespaces.

    Args:
        undone: Ends the cable.
        ends: Each namespace, and the address that it gets, with the length of its prefix.
        condition: How bad the cable is, both ways.
        seed: From what follows which packets are late.
    """
    number = next(_numbers)
    names = (f"x{os.getpid()}n{number}a", f"x{os.getpid()}n{number}b")
    options = [
        f"--{name}={getattr(condition, name)}"
        for name in ("least", "most", "overtaken", "twice", "eats")
    ]
    module = "campaign.networks.crooked"
    child = Child(
        *(sys.executable, "-m", module, *names, f"--seed={seed}", *options), limit=3600, stdin=True
    )
    undone.addCleanup(child.end)
    child.wait_for("^made$")
    for name, (namespace, address) in zip(names, ends, strict=True):
        output_of("ip", "link", "set", name, "netns", namespace.name)
        namespace.ip(f"addr add {address} dev {name}")
        namespace.ip(f"link set {name} mtu {condition.mtu} up")
        lines = condition.lines(name)
        if lines:
            namespace.run_lines(lines)
        if condition.eats:
            namespace.set("ipv4/tcp_mtu_probing", "1")
    return Cable(names, child)


class Path:
    """The three networks. Whoever makes one is in that of the servers, until all is undone.

    Args:
        undone: Removes them.
        condition: How bad each of both cables is.
        seed: From what follows which packets are late.

    Attributes:
        clients: The network of the clients.
        mux: That of txmux, at `MUX`.
        servers: That of the servers, whose 127.0.0.1 is at `SERVER` for txmux.
        near: The cable between the first two.
        far: The other one.
    """

    def __init__(self, undone: Undone, condition: Condition, seed: int) -> None:
        self.clients, self.mux, self.servers = (Namespace(undone) for _ in range(3))
        self.servers.enter()
        self.near = crooked_cable(
            undone, ((self.clients, f"{CLIENT}/24"), (self.mux, f"{MUX}/24")), condition, seed
        )
        self.far = crooked_cable(
            undone,
            ((self.mux, f"{_MUX_TO_SERVER}/24"), (self.servers, f"{SERVER}/24")),
            condition,
            seed + 1,
        )
        nft = require_program("nft")
        chain = "ip there {}".format
        self.servers.set("ipv4/conf/all/route_localnet", "1")
        self.servers.run_lines(
            [
                f"{nft} add table ip there",
                f"{nft} add chain {chain('to')} '{{ type nat hook prerouting priority dstnat; }}'",
                f"{nft} add rule {chain('to')} ip daddr {SERVER} dnat to 127.0.0.1",
                # Some servers ask less of those who are here.
                f"{nft} add chain {chain('from')} '{{ type nat hook input priority 100; }}'",
                f"{nft} add rule {chain('from')} ip saddr {_MUX_TO_SERVER} snat to 127.0.0.1",
            ]
        )
        # Otherwise a packet that is late enough would not be led to 127.0.0.1, and be answered with a reset.
        self.servers.set("netfilter/nf_conntrack_tcp_be_liberal", "1")

    def run(self, *command: Any) -> bytes:
        """Run a client that must succeed, and give what it printed."""
        return output_of(*self.clients.command, *command)
