"""Do the laws hold? Agreement, backtest, sensitivity, joint laws, resources, and which runs to make next."""
