"""The process that keeps root, and opens what the rules name."""
