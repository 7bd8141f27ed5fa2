"""Connections to the servers behind the port."""
