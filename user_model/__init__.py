"""Item vectors and histories in, user vectors out: the Hydra user model and its peers."""
