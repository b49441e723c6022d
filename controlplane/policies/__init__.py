"""Policy as data: rules, and the frozen snapshot that decisions are made from."""
