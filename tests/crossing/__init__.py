"""One backend reads what another wrote: reference runs, weights, checkpoints; files are all that crosses."""
