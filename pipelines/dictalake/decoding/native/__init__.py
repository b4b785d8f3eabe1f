"""Our own CTC prefix beam search, compiled by numba.

Read ``frame_loop.py`` first: it is the search. ``search.py`` is the door, which takes emissions and gives hypotheses.
"""
