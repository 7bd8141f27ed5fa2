"""Tests of `txmux.udp`."""
