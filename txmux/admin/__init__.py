"""The HTTP API and the page of a running service."""
