"""Portable conversations: out of a store as files that say what they are, and back in.

``formats`` reads what others have written, ``transfer`` moves conversations in and out of a store.
"""
