"""What a run takes of memory, known before."""
