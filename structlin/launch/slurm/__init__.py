"""A sweep on a SLURM cluster: what runs need, who has them, submission, the element inside an allocation, status."""
