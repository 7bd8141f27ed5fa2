"""What the workers of a service report about themselves, for all that is shown of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs

from txmux.control.broadcast import Answers
from txmux.control.gauges import Gauges
from txmux.control.overrides import WorkersCondition


@attrs.frozen
class WorkerReports:
    """What the workers report, asked at one moment.

    Attributes:
        missing: What prevents clients from being served.
        addresses: The states of servers' addresses.
        served: What is served by which worker.
        gauges: What is counted at the moment.
        condition: How the workers were.
        of: The names of the backends whose addresses were asked for; ``None`` are all.
    """

    missing: Sequence[str]
    addresses: Answers
    served: Mapping[str, Any]
    gauges: Gauges
    condition: WorkersCondition
    of: Collection[str] | None = None

    @property
    def lacking(self) -> list[str]:
        """A line for each worker without an answer, with the reason."""
        return [*dict.fromkeys([*self.addresses.missing, *self.gauges.missing])]
