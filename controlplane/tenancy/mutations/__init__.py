"""Changes to teams and members in the API."""
