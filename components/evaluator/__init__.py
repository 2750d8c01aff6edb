"""Gate 2: what the champion and the challenger are worth on rows that nobody trained on, and which of them stays."""
