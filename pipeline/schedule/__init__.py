"""The schedule: when a retraining starts by itself, as a process of its own, for months without a person.

`times` (when), `policy` (what becomes of it; pure), `state` (what is remembered), `supervise` (the process of a run),
`notify`, `health`, and `loop`, which holds them together. Nothing here imports TensorFlow, Beam or tfx.
"""
