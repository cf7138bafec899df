#!/bin/sh
# Compiles the driver with the engine, without Python:  build.sh TARGET [FLAGS...]
# The flags default to the address and undefined behaviour sanitizers.
set -eu
target=$1
shift
[ $# -gt 0 ] || set -- -fsanitize=address,undefined -fno-sanitize-recover=all
tests=$(cd "$(dirname "$0")" && pwd)
engine=$tests/../../../lbproxy/relay/native
exec ${CC:-cc} -std=c11 -O1 -g -Wall -Wextra -Werror -pthread "$@" -I "$engine" -o "$target" "$tests/driver.c" "$tests/pretend.c" \
    "$engine/engine.c" "$engine/owner.c" "$engine/slots.c" "$engine/doorway.c" "$engine/session.c" "$engine/move.c" "$engine/pipes.c" "$engine/deadlines.c" "$engine/watchdog.c" "$engine/calls.c"
