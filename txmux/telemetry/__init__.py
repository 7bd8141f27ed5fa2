"""What operators see: the access log."""
