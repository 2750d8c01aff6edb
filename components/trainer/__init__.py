"""The Trainer: trains a user's model on the window under a distribution strategy and exports it."""
