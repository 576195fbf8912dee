"""Collections as the vector-store API has them: what it asks, and what it is answered."""
