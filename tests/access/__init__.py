"""Tests of `txmux.tcp.limits`."""
