"""How tokens come out: the protocols every stage speaks, and the engines behind them."""
