"""A new process takes the place of an old one, with its connections."""
