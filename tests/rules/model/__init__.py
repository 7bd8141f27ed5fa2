"""Tests of the frozen values of rules."""
