"""The only door to the network: models and data sets."""
