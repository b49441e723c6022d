"""Changes to wallets."""
