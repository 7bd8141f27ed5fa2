"""`txmux top`: a running service, on the whole screen."""

from txmux.features.feature import Feature

FEATURE = Feature("top", commands={"top": "Watch and control a running service, full-screen."})
