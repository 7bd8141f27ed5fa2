"""Networks that change while the rules hold: files, CrowdSec, countries."""
