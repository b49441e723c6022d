"""Pools: budgets that several keys draw on together."""
