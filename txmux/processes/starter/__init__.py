"""The process that forks workers."""
