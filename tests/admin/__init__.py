"""Tests of `txmux.admin`."""
