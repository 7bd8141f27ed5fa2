"""What systemd is notified of, and the PID file."""
