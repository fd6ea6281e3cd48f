"""Adapters that read a source into records."""
