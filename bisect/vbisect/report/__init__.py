"""Everything shown or exported of a run, read from its records alone."""
