"""Collections as LlamaIndex knows vector stores and retrievers."""
