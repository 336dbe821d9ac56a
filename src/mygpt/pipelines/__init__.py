"""Whole life cycles, each readable in one sitting."""
