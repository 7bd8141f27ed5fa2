"""The processes of a service: a supervisor and the workers that serve its clients."""
