"""Tests of plain sockets beside the reactor."""
