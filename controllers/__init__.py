"""Ryu apps, exactly one class a file; `policies/` will hold the pure deciders."""
