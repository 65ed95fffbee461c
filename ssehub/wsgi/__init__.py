"""The HTTP rim of a hub: responses, and the sockets behind them."""
