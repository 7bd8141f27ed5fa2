"""Small machines: a share of a core for a whole service, and little memory; what is slow must not be taken for dead."""
