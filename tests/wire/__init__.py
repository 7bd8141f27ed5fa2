"""Tests of the readers of what goes over the wire."""
