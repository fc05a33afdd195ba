"""`python -m ebpo_sim.training_study`: see `ebpo_sim.studies.training`."""

from ebpo_sim import cli
from ebpo_sim.studies.training.study import main

if __name__ == "__main__":
    cli.run(main)
