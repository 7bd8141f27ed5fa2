"""Warnings about rules that are legal, but probably a mistake."""
