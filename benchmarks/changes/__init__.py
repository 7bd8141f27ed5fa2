"""What clients notice when a proxy reloads its rules or is upgraded: txmux beside HAProxy and nginx."""
