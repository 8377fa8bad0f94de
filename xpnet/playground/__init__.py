"""A trained network as one HTML file, in which a reader draws digits and steps through backpropagation."""

from xpnet.playground.page import playground

__all__ = ["playground"]
