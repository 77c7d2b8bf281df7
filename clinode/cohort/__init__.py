"""What was observed: cohorts of subjects measured at irregular times, read, checked and split."""
