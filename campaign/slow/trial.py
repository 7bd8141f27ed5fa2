"""One trial of a small machine."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from campaign.report import Report
from campaign.slow.service import Failure
from tests.support.undone import Undone
from txmux.errors import MuxError


@attrs.frozen
class Trial:
    """One of them.

    Attributes:
        name: What it is called in the report.
        do: Does it: reports what it measures and what breaks, and cleans up at the end by the other.
    """

    name: str
    do: Callable[[Report, Undone], None]

    def run(self) -> Report:
        """Do it, and give what came of it."""
        report = Report()
        try:
            with Undone() as undone:
                self.do(report, undone)
        except (Failure, AssertionError, OSError, MuxError) as problem:
            report.defects.append(f"{type(problem).__name__}: {problem}"[-4000:])
        return report
