"""Tests of `txmux.datagrams`."""
