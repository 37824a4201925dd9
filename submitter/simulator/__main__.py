"""python -m submitter.simulator: the simulator without the rest of Reelhook."""

from submitter.simulator.command import app

if __name__ == "__main__":
    app(prog_name="python -m submitter.simulator")
