"""File formats: one file per family, each with functions `read_x(file, reading) -> Converted`."""
