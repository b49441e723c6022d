"""What people changed, on record."""
