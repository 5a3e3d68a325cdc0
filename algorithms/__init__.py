"""How a policy is learned: one file per algorithm, a Config and its losses. Each registers itself when it is imported, here."""

from . import bc, bear, brac, combo, cql, iql, mbpo, mopo, morel, rambo, sac  # noqa: F401
