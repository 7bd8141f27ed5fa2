"""Replaces an old process with a new one, and moves its connections."""
