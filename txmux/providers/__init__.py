"""Programs beside the service that write rules from what other systems know."""
