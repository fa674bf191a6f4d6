"""From tables and stores to the points that laws are fitted to."""
