"""How does a trained model become one of another structure? Its matrices, one by one, by the nearest of each theta."""
