"""Tests of what is said to whoever writes rules."""
