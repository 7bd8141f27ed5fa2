"""Tests of connecting to a server."""
