"""In front of the Service: who may ask, how much, and the same answer to the same request."""
