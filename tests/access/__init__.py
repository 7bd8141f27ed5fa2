"""Tests of `txmux.access`."""
