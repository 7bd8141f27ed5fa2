"""What one process serves: its sockets, and the listeners behind them."""
