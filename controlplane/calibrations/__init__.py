"""Calibrations: by how much a model's bounds were too low, and are multiplied since."""
