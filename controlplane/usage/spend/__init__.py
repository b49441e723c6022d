"""What was spent: totals of an organization, its teams, members and keys."""
