"""Who is let in: by network, and within limits."""
