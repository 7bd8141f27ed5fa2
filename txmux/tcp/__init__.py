"""The side the clients see: listening, and each connection's life."""
