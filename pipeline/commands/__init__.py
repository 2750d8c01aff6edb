"""The commands of `evergreen`, one module each; `cli` imports a module when its command is used."""
