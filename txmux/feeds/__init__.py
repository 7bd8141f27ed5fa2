"""What keeps the networks of rules up to date: it watches files, and asks CrowdSec. It also tells when the rules have changed."""
