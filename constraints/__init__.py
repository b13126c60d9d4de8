"""The exact versions that each backend is tested with; installed as `dreamcore.constraints`."""
