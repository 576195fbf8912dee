"""What each choice costs: prices of others, and what was measured here."""
