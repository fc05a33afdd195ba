"""`python -m ebpo_sim.methods_study`: see `ebpo_sim.studies.methods`."""

from ebpo_sim import cli
from ebpo_sim.studies.methods.study import main

if __name__ == "__main__":
    cli.run(main)
