"""The `dreambooth` command; installed as `dreamcore.cli`."""
