"""What the writer of rules may have meant: asked only where there is an error."""
