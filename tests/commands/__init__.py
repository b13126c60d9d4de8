"""Commands but `train`."""
