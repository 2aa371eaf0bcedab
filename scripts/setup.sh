#!/bin/sh
# Make the environment in $VENV (.venv) from requirements.lock, with uv where it is there, else with venv and pip.
# PYTHON chooses the interpreter (3.11 to 3.13); the first suitable one on the PATH is taken otherwise.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
lock=requirements.lock
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

fail() {
    printf '%s\n' "$@" >&2
    exit 2
}

suitable() { # the interpreter runs, is of a supported version and, without uv, can make environments
    "$1" -c "$supported" 2>/dev/null && { [ "$have_uv" = yes ] || "$1" -c 'import ensurepip, venv' 2>/dev/null; }
}

have_uv=no
if command -v uv >/dev/null 2>&1; then have_uv=yes; fi

if [ -n "${PYTHON:-}" ]; then
    suitable "$PYTHON" || fail "PYTHON=$PYTHON: not a Python 3.11, 3.12 or 3.13 that can make environments." \
        "Give another, or (Debian, Ubuntu) install python3-venv."
    python=$PYTHON
else
    python=
    for candidate in python3.12 python3.13 python3.11 python3 python; do
        if suitable "$candidate"; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    [ "$have_uv" = yes ] || fail "No Python 3.11, 3.12 or 3.13 that can make environments was found." \
        "Install one (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.12), or install uv," \
        "or name one: make setup PYTHON=/path/to/python3.12"
    python=3.12 # uv fetches it
fi

# An environment that a killed call left, or of another Python, is made anew.
if ! "$venv/bin/python" -c "$supported" 2>/dev/null || { [ -n "${PYTHON:-}" ] && [ "$("$PYTHON" -c "import sys; print(sys.version_info[:2])")" != \
    "$("$venv/bin/python" -c "import sys; print(sys.version_info[:2])")" ]; }; then
    rm -rf "$venv"
    echo "Making $venv with $python ..."
    if [ "$have_uv" = yes ]; then
        uv venv --quiet --python "$python" "$venv"
    else
        "$python" -m venv "$venv"
    fi
fi

echo "Installing the packages of $lock into $venv ..."
if [ "$have_uv" = yes ]; then
    uv pip install --quiet --python "$venv/bin/python" --require-hashes -r "$lock"
    uv pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .
else
    [ -x "$venv/bin/pip" ] || "$venv/bin/python" -m ensurepip >/dev/null
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
fi
echo "Ready: activate it with  . $venv/bin/activate"
