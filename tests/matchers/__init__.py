"""Tests of the matchers."""
