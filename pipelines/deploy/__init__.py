"""Examples for schedulers: an sbatch array, a Kubernetes Indexed Job, a Ray cluster by hand, a container image."""
