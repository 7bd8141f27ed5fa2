"""Real programs over each bad network: how many bytes they moved, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs

from campaign.networks.conditions import CONDITIONS
from campaign.networks.path import Path
from campaign.networks.programs import PROGRAMS
from campaign.networks.site import Site
from tests.support.undone import Undone

CANNOT = {("tiny", "curl, HTTP/3")}
"""Programs that refuse a network themselves: QUIC asks for packets of 1,200 bytes (RFC 9000, section 14), and curl wants them whole."""

_ORDERLY = {"done", "drained"}
"""How connections, and flows that are there when the service is stopped, have to end."""
_TLS_RESETS = {"passed", "inside"}
"""Routes with TLS, whose peers may be gone before the other's close-notify has come."""


@attrs.define
class Transfers:
    """What has come of it.

    Attributes:
        programs: Runs of a program.
        moved: Bytes that arrived as they were sent.
        seconds: How long all programs took, by network.
        defects: A line for each program that failed, and each connection with a wrong end.
    """

    programs: int = 0
    moved: int = 0
    seconds: dict[str, list[float]] = attrs.field(factory=dict)
    defects: list[str] = attrs.field(factory=list)

    def run(
        self, network: str, *, relay: str, seed: int, size: int, programs: Sequence[str] = ()
    ) -> None:
        """Have each program speak over a network once.

        Args:
            network: Its name, as in `CONDITIONS`.
            relay: As in ``[txmux]``.
            seed: From what follows which packets are late, and what the files have in them.
            size: Bytes of what is sent and got.
            programs: Their names; all of them by default.
        """
        where = f"{network}, {relay} relay, seed {seed}"
        began = time.monotonic()
        with Undone() as undone:
            path = Path(undone, CONDITIONS[network], seed)
            site = Site(undone, path, relay=relay, seed=seed, size=size)
            for name in programs or PROGRAMS:
                if (network, name) in CANNOT:
                    continue
                self.programs += 1
                try:
                    self.moved += PROGRAMS[name](site)
                except Exception as error:  # noqa: BLE001 - whatever it is, the others have their turn
                    self.defects.append(f"{where}: {name}: {error}")
            for line in site.logged():
                orderly = _ORDERLY | ({"client-reset"} if line["route"] in _TLS_RESETS else set())
                if line["route"] is None or line["reason"] not in orderly:
                    told = f"{line['route']} ended with {line['reason']}"
                    self.defects.append(f"{where}: {told}")
        self.seconds.setdefault(network, []).append(time.monotonic() - began)
