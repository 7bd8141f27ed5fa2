"""What is done to a service with a share of a core."""

from __future__ import annotations

from functools import partial

from campaign.report import Report
from campaign.slow.service import Service
from campaign.slow.trial import Trial
from tests.support.undone import Undone

_STREAMS = 60
_MORE = "\n[route more]\nmatch = ssh\nbackend = close\n"


def change(percent: int, routes: int, report: Report, undone: Undone) -> None:
    """Start, reload one line, take it back."""
    service = Service(undone, report, percent, routes)
    service.begin(_STREAMS)
    service.reload("reload of one line", _MORE)
    service.reload("reload of one line back")
    service.settle()
    service.judge()


TRIALS = tuple(
    Trial(f"{percent} % of a core, {routes:,} routes", partial(change, percent, routes))
    for percent in (10,)
    for routes in (30,)
)
