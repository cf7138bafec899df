#!/bin/sh
# Pins what pyproject.toml asks for, with hashes: requirements/run.txt (the image, with every extra), requirements/build.txt (the build back
# end, for the image) and requirements/dev.txt (development and tests).
#
#   requirements/compile.sh [UV OPTIONS]      for example --upgrade, or --upgrade-package aiohttp
#
# The files hold for every supported Python (environment markers tell the differences) and name no package index.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
uv=${UV:-.cache/uv/bin/uv}
if [ ! -x "$uv" ] && ! command -v "$uv" >/dev/null; then
    "$python" -m venv .cache/uv
    .cache/uv/bin/python -m pip --quiet install uv
fi

# compile NAME INPUT [UV OPTIONS]
compile() {
    output=requirements/$1.txt
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
        --output-file "$output" "$@" >/dev/null
    {
        echo "# Pinned from pyproject.toml with hashes. Do not edit: change pyproject.toml and run requirements/compile.sh"
        echo "# (\`make requirements\`; with UPGRADE=--upgrade the newest versions are taken)."
        cat "$output"
    } >"$output.new"
    mv "$output.new" "$output"
}

compile run pyproject.toml --extra zookeeper "$@"
compile dev pyproject.toml --extra dev "$@"
"$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
    compile build - "$@"
