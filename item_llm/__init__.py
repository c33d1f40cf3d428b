"""Item texts in, item vectors out: the shared item LLM and its cache."""
