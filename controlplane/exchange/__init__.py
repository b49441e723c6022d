"""Exchange rates: from the currency of prices to those of organizations."""
