"""Whether what a served model is asked resembles what it learnt: the requests of a server's log against a window."""
