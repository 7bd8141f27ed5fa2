"""Readers of what goes over the wire, for matchers of this project and of others."""
