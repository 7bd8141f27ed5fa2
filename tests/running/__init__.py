"""Tests of `txmux.running`."""
