"""Running a service as a program of its own, which `txmux run` does."""
