"""`evergreen init`: a project from a file that nobody has seen before. Imports no TensorFlow."""
