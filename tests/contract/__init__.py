"""What every backend must do: one body a behaviour, run with whichever backend is installed."""
