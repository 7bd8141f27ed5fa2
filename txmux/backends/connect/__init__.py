"""A connection to one server."""
