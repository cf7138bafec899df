#!/bin/sh
# Compiles the driver with the engine, without Python:  build.sh TARGET [FLAGS...]
# The flags default to the address and undefined behaviour sanitizers.
set -eu
target=$1
shift
[ $# -gt 0 ] || set -- -fsanitize=address,undefined -fno-sanitize-recover=all
tests=$(cd "$(dirname "$0")" && pwd)
engine=$tests/../../../lbproxy/relay/native
for part in engine lifetime owner slots doorway session connecting limits ending move pipes deadlines watchdog calls; do
    set -- "$@" "$engine/$part.c"
done
exec ${CC:-cc} -std=c11 -O1 -g -Wall -Wextra -Werror -pthread -I "$engine" -o "$target" "$tests/driver.c" "$tests/pretend.c" "$@"
