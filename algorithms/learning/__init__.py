"""What every algorithm is made of: its contract, networks, dynamics models, rollouts, replay, optimisation."""
