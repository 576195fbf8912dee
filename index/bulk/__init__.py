"""A large corpus encoded ahead of its ingestion, by one process or by workers on many hosts."""
