"""The development cluster: a real four-node SLURM on one Debian machine. ``python -m slurm.dev --help``."""
