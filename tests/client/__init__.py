"""Tests of `txmux.client`."""
