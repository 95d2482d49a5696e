"""The store operations as schema functions, in the order in which they are created."""
