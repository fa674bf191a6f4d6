"""The two products of a structured layer: one operator, its backends, the plain torch path."""
