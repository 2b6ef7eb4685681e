"""Quality before and after: the divergence of a compressed model's outputs from the original's, or a user's metric."""
