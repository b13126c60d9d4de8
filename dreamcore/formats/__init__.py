"""Files of weights: safetensors, Paddle's, LoRA, optimizer state."""
