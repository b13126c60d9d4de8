"""Presets: settings for models in common use, for `--config NAME`; installed as `dreamcore.configs`."""
