"""Stage 8: the OpenAI-compatible API and the chat page."""
