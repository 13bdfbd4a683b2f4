"""The public calls, one module for each family: what they take, what they refuse, and who does the work."""
