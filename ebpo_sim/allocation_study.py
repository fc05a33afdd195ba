"""`python -m ebpo_sim.allocation_study`: see `ebpo_sim.studies.allocation`."""

from ebpo_sim import cli
from ebpo_sim.studies.allocation.study import main

if __name__ == "__main__":
    cli.run(main)
