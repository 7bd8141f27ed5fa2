"""Certificates by ACME (RFC 8555), which are renewed in time."""
