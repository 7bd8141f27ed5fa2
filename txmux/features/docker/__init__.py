"""Rules from the labels of containers, of Docker or Podman: `txmux provider docker`."""

from collections.abc import Sequence
from typing import Any

from txmux.rules.feature import Feature


def _providers() -> Sequence[Any]:
    from txmux.features.docker.provider import docker  # noqa: PLC0415 - only its command needs it

    return [docker]


FEATURE = Feature("docker", providers=_providers)
