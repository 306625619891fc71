"""The machinery of fabriclab, one room a stage: an experiment file goes in, rows and figures come out."""

__version__ = "0.1.0"
