"""The embedded dataset whose forgeries are of named kinds and are given away by several traces."""
