"""The GraphQL API: its schema, what all its types share, and its HTTP handler."""
