"""Kypho KG."""

__version__ = "0.1.0"
