"""Clients that mean harm: what they cost others, and what is left of them afterwards."""
