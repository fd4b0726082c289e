"""The users service: issues users and their tokens."""
