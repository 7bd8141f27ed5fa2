"""Tests of regular expressions for streams."""
