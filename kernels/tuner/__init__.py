"""Which launch parameters are fast on a device: occupancy, a search with a memory, and the roofline."""
