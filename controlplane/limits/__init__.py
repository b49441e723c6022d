"""Limits of every kind: budgets, breakers, rates, quotas."""
