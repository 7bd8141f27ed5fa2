"""The servers of a backend, and which of them is next."""
