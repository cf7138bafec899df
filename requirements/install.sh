#!/bin/sh
# Makes a virtual environment and installs the pinned requirements and lbproxy itself (editable) into it.
#
#   requirements/install.sh PYTHON DIRECTORY
#
# Debian ships Python without the means to make a virtual environment: as root, the missing package is installed.
set -eu
python=$1
directory=$2
cd "$(dirname "$0")/.."

# One at a time: a second one waits, and then finds nearly everything there.
mkdir -p .cache
exec 9>".cache/$(basename "$directory").lock"
! command -v flock >/dev/null || flock 9

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "lbproxy needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=/path/to/python." >&2
    exit 1
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$python cannot make virtual environments: install python$version-venv (or python3-venv) first." >&2
        exit 1
    fi
    echo "installing python$version-venv, which $python needs to make a virtual environment"
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "python$version-venv"
fi

# An environment of another Python, or one whose Python has gone, is made anew.
if ! "$directory/bin/python" -m pip --version >/dev/null 2>&1 ||
    [ "$("$directory/bin/python" -c 'import sys; print(sys.version_info[:2])')" != \
        "$("$python" -c 'import sys; print(sys.version_info[:2])')" ]; then
    "$python" -m venv --clear "$directory"
fi

pip() {
    "$directory/bin/python" -m pip --disable-pip-version-check --quiet "$@"
}
pip install --require-hashes --requirement requirements/dev.txt
pip install --no-deps --no-build-isolation --editable .
