"""What tests need: small models, runs and services; no test is here."""
