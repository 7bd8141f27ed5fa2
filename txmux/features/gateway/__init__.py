"""Rules from Kubernetes' Gateway API: `txmux provider gateway`."""

from collections.abc import Sequence
from typing import Any

from txmux.rules.feature import Feature


def _providers() -> Sequence[Any]:
    from txmux.features.gateway.provider import gateway  # noqa: PLC0415 - only its command needs it

    return [gateway]


FEATURE = Feature("gateway", providers=_providers)
