"""Formulas: noise schedules, coefficients, weights, samplers' names, and the keys of randomness."""
