"""The Pusher: whole versions, numbered upwards, in a TensorFlow Serving base path.

`versions`, `manifest`, `catalog` and `publish` are plain Python over the file system and import no TensorFlow; `watch`
looks whether the servers answer with what was published, and takes it back; `component` and `executor` make a TFX
component of them.
"""
