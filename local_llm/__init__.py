"""Ground floor and front door: everything that needs no model library."""

__version__ = "0.1.0"
