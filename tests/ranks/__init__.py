"""Distributed behaviour, tested in real processes over gloo."""
