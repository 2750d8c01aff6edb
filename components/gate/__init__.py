"""Gate: turns a verdict that may be missing into a condition that always has an answer."""
