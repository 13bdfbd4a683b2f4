"""Smaller and faster variants of a model, measured beside it, and refused if they answer otherwise."""
