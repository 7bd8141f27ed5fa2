"""Tests of `txmux.testing`."""
