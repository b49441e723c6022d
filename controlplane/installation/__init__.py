"""What the operator sets for all organizations together."""
