"""Rules from JSON, in a condition language of our own that can express nothing but conditions."""

from strategies.rules.ruleset import DEFAULT_RULES, RuleSet, full_size, load_rules, parse_rules

__all__ = ["DEFAULT_RULES", "RuleSet", "full_size", "load_rules", "parse_rules"]
