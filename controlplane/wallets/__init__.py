"""Prepaid balances: append-only entries whose sum is what is left."""
