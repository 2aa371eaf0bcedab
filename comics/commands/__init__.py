"""The commands of `comics`, one module a group; bodies import lazily so that `--help` and rendering stay quick."""
