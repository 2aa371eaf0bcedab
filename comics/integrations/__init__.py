"""Bridges to other projects' packages, each of them optional: imported when a function of its bridge is called."""
