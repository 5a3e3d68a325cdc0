"""How a policy is learned: one file per algorithm, a Config and its losses."""
