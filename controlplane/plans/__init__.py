"""Plans: what an organization pays on top of the provider's price, and how much it may ask for."""
