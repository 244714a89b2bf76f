"""What the benchmarks of the broker share: the people, the processes, and what sends requests."""
