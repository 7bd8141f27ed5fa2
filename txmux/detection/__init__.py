"""Decides on a route from a client's first bytes; pure, without sockets or clocks."""
