"""Evaluation of the arms: held-out losses, verdict, prompt suite, votes, sweeps."""
