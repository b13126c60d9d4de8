"""Prompts on their way to conditioning: tokenizers, templates, rare tokens."""
