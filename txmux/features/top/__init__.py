"""`txmux top`: a running service, on the whole screen."""

from txmux.rules.feature import Feature

FEATURE = Feature("top", commands={"top": "Watch and control a running service, full-screen."})
