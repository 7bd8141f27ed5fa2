"""Commands of the `txmux` program: one file each."""
