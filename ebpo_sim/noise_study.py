"""`python -m ebpo_sim.mse_study`: see `ebpo_sim.studies.noise`."""

from ebpo_sim import cli
from ebpo_sim.studies.noise.study import main

if __name__ == "__main__":
    cli.run(main)
