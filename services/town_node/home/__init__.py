"""Today: what comes next, and what to do first."""
