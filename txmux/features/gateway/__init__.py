"""Rules from Kubernetes' Gateway API: `txmux provider gateway`."""

from txmux.rules.feature import Feature
from txmux.rules.optional import named

FEATURE = Feature("gateway", providers=lambda: [named("txmux.features.gateway.provider:gateway")])
