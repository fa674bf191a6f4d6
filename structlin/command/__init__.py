"""What can be typed: ``structlin COMMAND`` and the doors of the tree, which are the same functions."""
