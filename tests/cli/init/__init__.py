"""Tests of `txmux init`."""
