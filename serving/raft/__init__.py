"""Training files for answers with retrieved context (RAFT), out of questions and a collection."""
