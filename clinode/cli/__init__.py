"""The command line: text becomes a configuration, a call and a report."""
