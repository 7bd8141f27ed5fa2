"""Tests of names of servers."""
