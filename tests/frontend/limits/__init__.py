"""Tests of `txmux.frontend.limits`."""
