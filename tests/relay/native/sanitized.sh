#!/bin/sh
# Runs the relay's tests on an extension that was built with a sanitizer, in a copy of the tree under .cache/:
#
#   tests/relay/native/sanitized.sh address,undefined|thread [PYTEST ARGUMENTS]
#
# The interpreter is not built with it, so the sanitizer's library is loaded before it. Leaks are not looked for here (the
# interpreter keeps what it likes; the driver's histories look for the engine's); the suppressions name the interpreter alone.
#
# A process that dies says why, whoever it is: the sanitizers write into files of their own, for while a test runs pytest keeps stderr for
# itself, and with a worker all that he kept is gone; stderr is not kept at all (the watchdog's last words go there); a worker tells its
# exit status (worker.sh). Any report is a failure, also one of a process that a test started and did not ask.
set -eu
kind=$1
shift
cd "$(dirname "$0")/../../.."
python=$(pwd)/.venv/bin/python
tree=.cache/sanitized-$kind
mkdir -p "$tree"
rm -rf "$tree/lbproxy" "$tree/tests" "$tree/reports"
mkdir "$tree/reports"
cp -r lbproxy tests setup.py pyproject.toml README.md LICENSE "$tree"
find "$tree/lbproxy" -name '*.so' -delete
cd "$tree"
LBPROXY_EXT=1 LBPROXY_WERROR=1 LBPROXY_SANITIZE=$kind "$python" setup.py -q build_ext --inplace
reports=$(pwd)/reports
plain=
case $kind in
thread)
    LD_PRELOAD=$(cc -print-file-name=libtsan.so)
    export TSAN_OPTIONS="exitcode=66 halt_on_error=1 log_path='$reports/thread' suppressions='$(pwd)/tests/relay/native/tsan.txt'"
    # Its shadow has fixed places. Where the kernel spreads mappings over more bits than it reckons with, it ends at start.
    ! setarch --addr-no-randomize true 2>/dev/null || plain="setarch --addr-no-randomize"
    ;;
*)
    LD_PRELOAD="$(cc -print-file-name=libasan.so) $(cc -print-file-name=libubsan.so)"
    export ASAN_OPTIONS="detect_leaks=0 halt_on_error=1 allocator_may_return_null=1 log_path='$reports/address'"
    export UBSAN_OPTIONS="halt_on_error=1 print_stacktrace=1 log_path='$reports/undefined'"
    ;;
esac
# What the process holds, and what it spends, says nothing here: the sanitizers take a multiple of it.
[ $# -gt 0 ] || set -- tests/relay/conformance tests/relay/native/test_doorway.py tests/relay/native/test_scarce.py \
    -k "native and not sender_is_stopped and not take_no_memory and not busy_session and not cost_little"
workers=${WORKERS:-auto}
[ "$workers" != auto ] || workers=$(nproc)
[ "$workers" = 0 ] || set -- --max-worker-restart 2 --dist load --tx "$workers*popen//python=env -u LD_PRELOAD $(pwd)/tests/relay/native/worker.sh" "$@"
export WORKER_PYTHON="$python" WORKER_PRELOAD="$LD_PRELOAD"
status=0
LD_PRELOAD=$LD_PRELOAD $plain "$python" -X faulthandler -m pytest -q -p no:cacheprovider --capture=sys -o timeout=900 "$@" || status=$?
for report in "$reports"/*; do
    [ -e "$report" ] || break
    echo "$report:"
    cat "$report"
    [ $status != 0 ] || status=66
done
exit $status
