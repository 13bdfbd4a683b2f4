"""Personal data: encrypted per person, and erased from the log by destroying the person's key."""
