"""Carrying bytes both ways between a client and a server."""
