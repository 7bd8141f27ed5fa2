"""The TLS ClientHello beyond its reading: records, what else it has, and what follows it."""
