"""Our own CTC prefix beam search: compiled by numba, with the language model and hotwords in the same pass.

Read ``frame_loop.py`` first: it is the search. ``search.py`` is the door, which takes emissions and gives hypotheses.
"""
