"""Canonical COCO files: their form, other files converted to it, repairs on the way, and checks of what came out."""
