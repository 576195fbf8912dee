"""From a chat request to its answer: resolve, retrieve, assemble, ask the engine, cite."""
