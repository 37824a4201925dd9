"""NanoGPT's video API as the simulator plays it: poll-only jobs under /api."""
