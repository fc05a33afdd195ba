"""`python -m ebpo_sim.leaderboard`: see `ebpo_sim.studies.leaderboard`."""

from ebpo_sim import cli
from ebpo_sim.studies.leaderboard.study import main

if __name__ == "__main__":
    cli.run(main)
