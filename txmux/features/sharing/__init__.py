"""Bans and limits that several machines share, by Redis."""
