"""What the machine offers to every room: files written whole or not at all, the network."""
