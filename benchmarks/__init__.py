"""Measurements of whole clusters."""
