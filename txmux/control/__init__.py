"""What an operator asks of a running service, and changes in it, over all its workers."""
