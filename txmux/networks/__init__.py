"""Networks that change while the service runs: of files, of CrowdSec, of a country; and bans."""
