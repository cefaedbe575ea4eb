"""drakegpt: how a GPT comes to be, on a songwriter's lyrics or your own text."""

__version__ = "0.1.0"
