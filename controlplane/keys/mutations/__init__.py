"""Changes to keys in the API."""
