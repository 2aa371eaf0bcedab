"""The workflow seen from Python: what there is to make, the demo, and what is at work."""
