"""A program of a user's, looked at by the type checkers that users have."""
