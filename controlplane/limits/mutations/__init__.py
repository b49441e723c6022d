"""Changes to limits in the API."""
