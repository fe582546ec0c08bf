"""Hold the numerical kernels of the backbone."""
