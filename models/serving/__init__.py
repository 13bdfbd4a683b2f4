"""Serving: REST in front of each task's champion; every answer is in the log before the caller has it."""
