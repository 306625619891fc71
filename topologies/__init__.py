"""Pure functions that return a Fabric, one topology a file."""
