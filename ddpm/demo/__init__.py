"""What the page can do, without the page: requests are checked, walks come back as films.

requests: what may be asked for. tasks: what is shown. answers: what programs get of it. turns: who
computes next. http: what is answered before Gradio answers. about: a sentence about the weights.
serving: which weights they are.
"""
