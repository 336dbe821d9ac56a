"""Pages for people who work with models: a shell without logic over the same calls, beside the command line."""
