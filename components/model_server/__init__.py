"""A model server from the outside: a process that serves, a client of it, and what is asked to prove that it serves."""
