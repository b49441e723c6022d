"""Organizations, teams, users and their memberships."""
