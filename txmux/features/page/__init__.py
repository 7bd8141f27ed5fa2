"""The page: what needs your attention, the map, connections, servers and rules, written by Jinja2."""

from txmux.rules.feature import Feature
from txmux.rules.optional import named

FEATURE = Feature("page", resources=lambda: named("txmux.features.page.resources:RESOURCES"))
