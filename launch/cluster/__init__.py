"""Several processes and hosts: start, heartbeat, run lock, Slurm."""
