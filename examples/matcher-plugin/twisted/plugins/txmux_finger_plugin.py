"""Offers the matcher to txmux; keep this file small, every Twisted program that looks for plugins may read it."""

from txmux_finger import FingerMatcher

finger = FingerMatcher()
