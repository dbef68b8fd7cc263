"""The probe against servers that somebody else runs: once, or again and again with metrics."""
