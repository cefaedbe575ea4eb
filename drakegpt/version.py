"""The version of drakegpt, where the build, runs and pages read it."""

__version__ = "0.1.0"
