"""The second factor, as the person meets it."""
