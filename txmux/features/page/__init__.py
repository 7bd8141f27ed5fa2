"""The page: what needs your attention, the map, connections, servers and rules, written by Jinja2."""

from collections.abc import Sequence
from typing import Any

from txmux.rules.feature import Feature


def _resources() -> Sequence[Any]:
    from txmux.features.page.resources import RESOURCES  # noqa: PLC0415 - only an endpoint needs them

    return RESOURCES


FEATURE = Feature("page", resources=_resources)
