"""A tool of the ancestor's family that answers and does nothing else; for the bench's row of peers."""
