"""`python -m ebpo_sim.entropy_study`: see `ebpo_sim.studies.entropy`."""

from ebpo_sim import cli
from ebpo_sim.studies.entropy.study import main

if __name__ == "__main__":
    cli.run(main)
