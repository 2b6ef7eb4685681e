"""The version of this package; part of every file's notes and of every journal's key."""

__version__ = "0.1.0"
