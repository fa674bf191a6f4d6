"""What is a run? Its Science in typed groups, its placement, its identity, and its composition by Hydra."""
