"""One run: settings, journal, trials, answer."""
