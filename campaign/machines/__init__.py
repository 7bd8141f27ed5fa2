"""Bad servers and bad machines: what goes wrong around a service, one by one, and how it goes on afterwards."""
