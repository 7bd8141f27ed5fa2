"""Counters that only ever grow, in memory that all processes share."""
