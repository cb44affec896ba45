"""Where jobs run. Knows jobs by their command line alone."""
