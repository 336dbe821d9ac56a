"""The command line: a shell without logic."""
