"""Rules from the labels of containers, of Docker or Podman: `txmux provider docker`."""

from txmux.rules.feature import Feature
from txmux.rules.optional import named

FEATURE = Feature("docker", providers=lambda: [named("txmux.features.docker.provider:docker")])
