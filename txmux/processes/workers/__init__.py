"""The processes that serve clients."""
