"""Benchmarks: ratios with their yardstick in the same run. They print JSON and assert no time."""
