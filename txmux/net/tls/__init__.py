"""TLS: what PEM files hold, and the TLS of clients that ends here."""
