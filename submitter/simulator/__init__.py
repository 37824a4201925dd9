"""The platform simulator: speaks Runware's and NanoGPT's HTTP contracts, and misbehaves on request.

It imports neither the receiver nor the rest of the submitter, so that it can't share our mistakes.
"""
