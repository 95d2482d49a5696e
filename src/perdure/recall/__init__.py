"""Recall: which of many old items matter to the next message. Pure functions on text and numbers.

A rebuilt replica has a budget, and a long history does not fit it. What is chosen are whole turns,
by what they share with the next message (``ranking``) and by what embeddings say where there are
some (``meaning``), as many as fit (``choosing``). The rules are general ones of text retrieval;
none knows a name, a date or a subject of any data.
"""
