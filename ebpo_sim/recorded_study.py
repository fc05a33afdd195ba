"""`python -m ebpo_sim.recorded_study`: see `ebpo_sim.studies.recorded`."""

from ebpo_sim import cli
from ebpo_sim.studies.recorded.study import main

if __name__ == "__main__":
    cli.run(main)
