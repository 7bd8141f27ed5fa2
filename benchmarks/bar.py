"""What txmux is measured by: the bar that every release has to clear, and the stretch beyond it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from benchmarks.results import FIGURES

if TYPE_CHECKING:
    from benchmarks.results import Results, Spread

OURS = "txmux"
"""The configuration that is judged: the one that users get."""


@attrs.frozen
class Goal:
    """One goal.

    Attributes:
        figure: The key of what is measured.
        limit: What may not be exceeded; or undercut, if more is better.
        against: The family of proxies whose multiple the limit is, the best of each; without one, the limit is in the figure's
            own unit.
    """

    figure: str
    limit: float
    against: str | None = None

    def reached(self, results: Results) -> Spread | None:
        """Give what is compared with the limit, by its median, if it was measured."""
        if self.against is None:
            return results.spread(self.figure, OURS)
        return results.ratio(self.figure, OURS, self.against)

    def is_met(self, results: Results) -> bool | None:
        """Tell whether it is met, if it was measured."""
        reached = self.reached(results)
        if reached is None:
            return None
        if FIGURES[self.figure].more_is_better:
            return reached.middle >= self.limit
        return reached.middle <= self.limit


_BULK = ("bulk.cpu", "bulk.cpu4", "other.cpu", "other.cpu4")

BAR = (
    *(Goal(key, 0.75, "haproxy") for key in _BULK),
    Goal("bulk.rate", 1.2, "haproxy"),
    Goal("stream.cpu", 1.3, "haproxy"),
    Goal("small.cpu", 1.15, "haproxy"),
    Goal("connection.cpu", 1.6, "haproxy"),
    Goal("tls.full", 1.6, "haproxy"),
    Goal("storm.connect", 5, "haproxy"),
    Goal("storm.request", 10),
    Goal("storm.request99", 100),
    Goal("memory.idle", 4),
    Goal("memory.undecided", 12),
    Goal("held", 9000),
    Goal("start.cpu", 300),
    Goal("start.memory", 60),
    Goal("workers.memory", 62),
    Goal("large.check", 2),
    Goal("large.start", 2.5),
    Goal("large.memory", 150),
    Goal("large.decision", 60),
    Goal("detection.ssh", 10),
    Goal("detection.http", 10),
    Goal("detection.tls", 10),
    Goal("detection.alpn", 3),
    Goal("detection.odd", 3),
    Goal("detection.quic", 150),
    Goal("udp.up", 5.0, "nginx"),
    Goal("udp.down", 5.0, "nginx"),
    Goal("udp.question", 1.5, "nginx"),
    Goal("udp.flow", 2.6, "nginx"),
    Goal("udp.memory", 4),
    Goal("udp.held", 9000),
    # What does not depend on the machine: 2 % above what was counted.
    Goal("calls.start", 12_000),
    Goal("calls.check", 8_400),
    Goal("calls.connection", 30),
    Goal("calls.request", 6.1),
    Goal("calls.full", 54),
    Goal("calls.resumed", 50),
    Goal("calls.flow", 13.5),
    Goal("instructions.start", 1_610_000),
    Goal("instructions.check", 1_085_000),
    Goal("instructions.connection", 410),
    Goal("instructions.request", 32),
    Goal("instructions.full", 3_900),
    Goal("instructions.resumed", 3_600),
    Goal("instructions.flow", 362),
)
STRETCH = (
    *(Goal(key, 0.55, "haproxy") for key in _BULK),
    Goal("bulk.rate", 1.4, "haproxy"),
    Goal("stream.cpu", 1.1, "haproxy"),
    Goal("small.cpu", 1.08, "haproxy"),
    Goal("connection.cpu", 1.4, "haproxy"),
    Goal("tls.full", 1.4, "haproxy"),
    Goal("storm.connect", 2, "haproxy"),
    Goal("storm.request", 2),
    Goal("storm.request99", 30),
    Goal("memory.idle", 3.3),
    Goal("start.cpu", 200),
    Goal("workers.memory", 58),
    Goal("large.check", 1.5),
    Goal("large.start", 1.5),
    Goal("udp.flow", 2.0, "nginx"),
)
