"""`python -m ebpo_sim.mse_study`: see `ebpo_sim.studies.mse`."""

from ebpo_sim import cli
from ebpo_sim.studies.mse.study import main

if __name__ == "__main__":
    cli.run(main)
