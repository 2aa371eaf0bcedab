"""Datasets: making, fetching, converting, checking, perturbing and loading them. Imports no model."""
