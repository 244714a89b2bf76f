"""The front door: HTTP in, answers out. Nothing here decides anything."""
