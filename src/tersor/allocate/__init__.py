"""A budget in, a choice for every tensor out."""
