"""Several processes that serve the same ports: a parent, which serves nobody, and its workers."""
