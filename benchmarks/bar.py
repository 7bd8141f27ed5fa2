"""What txmux is measured by: the bar that every release has to clear, and the stretch beyond it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from benchmarks.results import FIGURES

if TYPE_CHECKING:
    from benchmarks.results import Results

OURS = "txmux"
"""The configuration that is judged: the one that users get."""


@attrs.frozen
class Goal:
    """One goal.

    Attributes:
        figure: The key of what is measured.
        limit: What may not be exceeded; or undercut, if more is better.
        against: The proxy or the family of proxies whose multiple the limit is; without one, the limit is in the
            figure's own unit.
    """

    figure: str
    limit: float
    against: str | None = None

    def reached(self, results: Results) -> float | None:
        """Give what is compared with the limit, if it was measured."""
        ours = results.median(self.figure, OURS)
        if ours is None or self.against is None:
            return ours
        theirs = results.median(self.figure, self.against)
        if theirs is None:
            theirs = results.best(self.figure, self.against)
        return ours / theirs if theirs else None

    def is_met(self, results: Results) -> bool | None:
        """Tell whether it is met, if it was measured."""
        reached = self.reached(results)
        if reached is None:
            return None
        more_is_better = FIGURES[self.figure].more_is_better
        return reached >= self.limit if more_is_better else reached <= self.limit


BAR = (
    Goal("bulk.cpu", 0.75, "haproxy"),
    Goal("bulk.rate", 1.15, "haproxy"),
    Goal("small.cpu", 1.15, "haproxy"),
    Goal("connection.cpu", 2.0, "haproxy"),
    Goal("connection.cpu", 0.8, "sslh"),
    Goal("memory.idle", 8),
    Goal("memory.undecided", 12),
    Goal("held", 9000),
)
STRETCH = (
    Goal("bulk.cpu", 0.6, "haproxy"),
    Goal("bulk.rate", 1.3, "haproxy"),
    Goal("small.cpu", 0.9, "haproxy"),
    Goal("connection.cpu", 1.5, "haproxy"),
    Goal("connection.cpu", 1.0, "envoy"),
    Goal("memory.idle", 0.5, "nginx"),
)
