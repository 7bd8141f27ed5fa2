"""What the metrics have of sharing with other machines, and what needs attention."""

from typing import Any

from txmux.control.gauge import Gauge
from txmux.features.sharing.store import is_shared
from txmux.telemetry.attention import AttentionRow
from txmux.telemetry.attention_rows import COMMON, NO_SOURCE, SELF
from txmux.telemetry.counting.counter_rows import Metric, Samples, only


def _is_up(_: object, counts: Any) -> Samples:
    is_up = is_shared(counts.gauges.outside)
    return [] if is_up is None else only(is_up)


# fmt: off
BANS_WITHOUT_ROOM = AttentionRow(
    what="bans", level="warning", text="{text}", do="{do}", subject="room", is_logged=True, runbook=SELF, sources=NO_SOURCE, alerts=COMMON,
    when="there is no room for bans of other machines")

ROWS = (
    BANS_WITHOUT_ROOM,
    Gauge(name="cluster", metrics=[
        Metric("cluster_up", "Whether limits and bans are shared with other machines.", "", _is_up,
               "Changes after three seconds; missing without [`shared_limits`](rules.md#shared-limits).")]),
)
# fmt: on
