"""`python -m ebpo_sim.prediction_study`: see `ebpo_sim.studies.prediction`."""

from ebpo_sim import cli
from ebpo_sim.studies.prediction.study import main

if __name__ == "__main__":
    cli.run(main)
