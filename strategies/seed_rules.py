"""The default rules of the strategy-evolution seed, run exactly as they were given."""

from strategies.rules import DEFAULT_RULES, load_rules

SEED_RULES = load_rules({**DEFAULT_RULES, "name": "seed_rules"})
