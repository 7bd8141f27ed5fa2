"""The process that starts and watches the workers."""
