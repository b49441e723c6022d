"""What was spent when, on what: series over time by up to two dimensions."""
