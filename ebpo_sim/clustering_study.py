"""`python -m ebpo_sim.clustering_study`: see `ebpo_sim.studies.clustering`."""

from ebpo_sim import cli
from ebpo_sim.studies.clustering.study import main

if __name__ == "__main__":
    cli.run(main)
