"""OpenForensics: its record fetched, its archives unpacked, its annotations converted."""
