"""The border to the frameworks: its protocol, who is installed, and the body that the adapters share."""
