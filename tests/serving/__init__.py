"""Tests of `txmux.serving`."""
