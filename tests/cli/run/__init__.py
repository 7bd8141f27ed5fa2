"""Tests of `txmux.cli.run`."""
