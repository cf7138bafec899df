#!/bin/sh
# Runs the relay's tests on an extension that was built with a sanitizer, in a copy of the tree under .cache/:
#
#   tests/relay/native/sanitized.sh address,undefined|thread [PYTEST ARGUMENTS]
#
# The interpreter is not built with it, so the sanitizer's library is loaded before it. Leaks are not looked for here (the
# interpreter keeps what it likes; the driver's histories look for the engine's); the suppressions name the interpreter alone.
set -eu
kind=$1
shift
cd "$(dirname "$0")/../../.."
python=$(pwd)/.venv/bin/python
tree=.cache/sanitized-$kind
mkdir -p "$tree"
rm -rf "$tree/lbproxy" "$tree/tests"
cp -r lbproxy tests setup.py pyproject.toml README.md LICENSE "$tree"
find "$tree/lbproxy" -name '*.so' -delete
cd "$tree"
LBPROXY_EXT=1 LBPROXY_WERROR=1 LBPROXY_SANITIZE=$kind "$python" setup.py -q build_ext --inplace
case $kind in
thread)
    LD_PRELOAD=$(cc -print-file-name=libtsan.so)
    export TSAN_OPTIONS="exitcode=66 halt_on_error=1 suppressions=$(pwd)/tests/relay/native/tsan.txt"
    ;;
*)
    LD_PRELOAD="$(cc -print-file-name=libasan.so) $(cc -print-file-name=libubsan.so)"
    export ASAN_OPTIONS="detect_leaks=0 halt_on_error=1 allocator_may_return_null=1" UBSAN_OPTIONS="halt_on_error=1 print_stacktrace=1"
    ;;
esac
export LD_PRELOAD
# What the process holds, and what it spends, says nothing here: the sanitizers take a multiple of it.
[ $# -gt 0 ] || set -- -n "${WORKERS:-auto}" tests/relay/conformance tests/relay/native/test_doorway.py tests/relay/native/test_scarce.py \
    -k "native and not sender_is_stopped and not take_no_memory and not busy_session and not cost_little"
exec "$python" -m pytest -q -p no:cacheprovider -o timeout=900 "$@"
