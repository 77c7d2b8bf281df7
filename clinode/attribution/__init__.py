"""Which measured events moved the output, and how far the answer can be trusted."""
