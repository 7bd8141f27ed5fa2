"""Reports on a running service, and changes to it, over all its workers."""
