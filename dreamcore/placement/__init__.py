"""What a run takes of the device's memory and of the host's, stage by stage, known before anything is loaded."""
