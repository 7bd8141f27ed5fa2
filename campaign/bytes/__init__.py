"""Byte truth: very many connections of every kind, each byte of which is known beforehand and looked at on its arrival."""
