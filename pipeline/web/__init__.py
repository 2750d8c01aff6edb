"""The run's card and the model's history as one HTML file, and the same as a local web page.

`statistics`, `data`, `network`, `history` and `overview` gather plain values from ML Metadata and the artifacts' files;
`charts` turns them into pictures; `pages` lays them out by the templates; `app` serves them and `guard` decides who may
ask. No TensorFlow and no tfx. What the browser gets lies in `static/`, the libraries' licences beside them.
"""
