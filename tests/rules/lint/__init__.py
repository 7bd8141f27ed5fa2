"""Tests of the warnings about rules."""
