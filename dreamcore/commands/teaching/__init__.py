"""What `dreambooth teach` chooses, each with why: the model, its preset, the words, the length, what fits in memory."""
