"""The lowest minimum of an objective: forms of the law, objectives, solver."""
