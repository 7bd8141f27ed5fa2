"""Accounts, the helper that keeps root, and the sandbox."""
