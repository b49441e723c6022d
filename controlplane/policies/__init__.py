"""Policy as data: model rules, and the frozen snapshot that decisions are made from."""
