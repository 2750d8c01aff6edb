"""Where a run's time goes: `evergreen run --profile`. Nothing here is loaded without it.

A thread looks at the stacks of the process (`sampler`), they are sorted into parts (`parts`, `split`), and written for
trace viewers (`trace`). `session` is what the command uses.
"""
