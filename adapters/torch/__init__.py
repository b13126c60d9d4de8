"""The PyTorch backend, on diffusers, transformers and peft."""
