"""Perturbations of images, and whole splits perturbed by them."""
