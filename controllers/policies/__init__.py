"""The pure deciders, one a file: each has `decide(view)`, no Ryu, no clock, and no randomness but by a parameter."""
