"""How results are shown: pages, plots and tables drawn from artefacts and events."""
