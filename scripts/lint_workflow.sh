#!/bin/sh
# snakemake --lint, less its wish for a conda environment or container in each rule: one environment, locked with hashes
# in requirements.lock, serves all of them, and a per-rule one would retrain every run whenever a package is added to it.
set -eu
snakemake=${1:-snakemake}
if found=$("$snakemake" --lint 2>&1); then
    echo "$found"
elif others=$(printf '%s\n' "$found" | grep '^    \* ' | grep -v 'Specify a conda environment or container'); then
    printf '%s\n' "$found" >&2
    printf 'To mend:\n%s\n' "$others" >&2
    exit 1
elif printf '%s\n' "$found" | grep -q '^Lints for'; then
    echo "snakemake --lint: nothing to mend."
else
    printf '%s\n' "$found" >&2
    exit 1
fi
