"""Rules from the labels of containers, of Docker or Podman: `txmux provider docker`."""

from txmux.optional import named
from txmux.rules.feature import Feature

FEATURE = Feature("docker", providers=lambda: [named("txmux.features.docker.provider:docker")])
