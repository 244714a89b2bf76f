"""Keep secrets at rest, hand finished credentials out."""
