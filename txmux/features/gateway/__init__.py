"""Rules from Kubernetes' Gateway API: `txmux provider gateway`."""

from txmux.optional import named
from txmux.rules.feature import Feature

FEATURE = Feature("gateway", providers=lambda: [named("txmux.features.gateway.provider:gateway")])
