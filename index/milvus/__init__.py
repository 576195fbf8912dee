"""A collection's vectors in Milvus instead of in memory; only `client` imports pymilvus, inside functions."""
