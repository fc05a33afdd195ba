"""`python -m ebpo_sim.bench`: see `ebpo_sim.bench.engine`."""

from ebpo_sim import cli
from ebpo_sim.bench.engine import main

if __name__ == "__main__":
    cli.run(main)
