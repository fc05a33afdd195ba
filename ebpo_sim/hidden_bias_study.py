"""`python -m ebpo_sim.hidden_bias_study`: see `ebpo_sim.studies.hidden_bias`."""

from ebpo_sim import cli
from ebpo_sim.studies.hidden_bias.study import main

if __name__ == "__main__":
    cli.run(main)
