"""The ground floor: errors, configuration, digests, runs, and the one list of who may open a connection."""
