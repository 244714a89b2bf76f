"""The world on loopback: identity provider, broker, a strict AWS over moto, a software security key."""
