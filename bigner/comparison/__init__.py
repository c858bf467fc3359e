"""Finished runs side by side: found (runs), told apart (groups), compared (scores), shown (tables).

No torch in here: a comparison is quick, and needs no machine that can train.
"""
