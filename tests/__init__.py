"""Tests of txmux."""
