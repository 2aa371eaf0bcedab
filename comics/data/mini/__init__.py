"""The embedded dataset, rendered from a seed in OpenForensics' exact format."""
