"""One module per dialect: what a request of it means, and how its answers are read."""
