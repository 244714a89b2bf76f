"""The broker: verifies the ID token and the second factor, decides, records, mints.

Read ``service`` (the story) and ``policy`` (pure decisions) first.
"""
