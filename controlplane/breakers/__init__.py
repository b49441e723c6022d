"""Breakers as people see them: thresholds and from whom they are, and what is spent."""
