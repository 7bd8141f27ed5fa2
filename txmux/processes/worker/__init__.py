"""A worker: the process that serves clients, and its sandbox."""
