"""Site things: the development cluster. No experiment logic."""
