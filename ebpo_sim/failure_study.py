"""`python -m ebpo_sim.failure_study`: see `ebpo_sim.studies.failure`."""

from ebpo_sim import cli
from ebpo_sim.studies.failure.study import main

if __name__ == "__main__":
    cli.run(main)
