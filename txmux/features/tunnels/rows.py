"""What the service reports of logins to tunnels."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from txmux.control.gauge import Gauge, list_of, merged, outer_routes
from txmux.net.channel.message import WORD, Field
from txmux.telemetry.attention import AttentionItem, AttentionRow
from txmux.telemetry.attention_rows import COMMON
from txmux.telemetry.formatting import plural


def _logins(serving: Any) -> Iterator[tuple[str, int, str]]:
    # A route with the key has loaded it. Nothing else may: an upgrade may have replaced the files of this process.
    stage = sys.modules.get("txmux.features.tunnels.stage")
    if stage is None:
        return
    for route in outer_routes(serving):
        for make in route.stages:
            if isinstance(make, stage.TunnelMaker) and (crowd := make.crowded()) is not None:
                yield route.name, *crowd


def crowded_logins(by_route: Mapping[str, tuple[int, str]]) -> Iterator[AttentionItem]:
    from txmux.control.clients import is_network  # noqa: PLC0415 - it counts, too

    for route, (number, source) in by_route.items():
        ban = f"; keep it out: txmux ban {source} 1h" if is_network(source) else ""
        logins = plural(number, "login")
        yield LOGINS_WAIT.item(route=route, logins=logins, source=source, ban=ban)


# fmt: off
LOGINS_WAIT = AttentionRow(
    what="logins", level="warning", text="route {route}: {logins} wait to be checked in a worker", cause="the most wrong ones are from {source}",
    do="see who they are: txmux clients{ban}", link="#clients", subject="{route}", is_logged=True, runbook="a-client-is-refused", sources="8: each source has two places",
    alerts=COMMON, when="16 or more logins to a tunnel waited to be checked within the last minute, and who sends the most wrong ones")
ROWS = (
    LOGINS_WAIT,
    Gauge(
        "By route, how many logins have waited lately to be checked, and the source of the most wrong ones, if they are many.",
        {}, name="logins", combine=merged(max), bounds=list_of(WORD, Field(int), WORD), collect=_logins, attention=crowded_logins),
)
# fmt: on
