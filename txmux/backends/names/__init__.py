"""Names of servers, and the addresses behind them."""
