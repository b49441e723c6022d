"""Changes to plans and to whose they are."""
