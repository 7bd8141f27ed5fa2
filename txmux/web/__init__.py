"""What is asked of other services by HTTP."""
