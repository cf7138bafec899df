#!/bin/sh
# Fuzzes the engine's state machine with libFuzzer: the results of every system call, what the peers do, and when.
#
#   tests/relay/native/fuzz.sh [SECONDS] [LIBFUZZER OPTIONS]     (300 seconds unless told otherwise)
#
# Starts from the inputs in corpus/ and those found before (.cache/fuzz). An input that breaks an invariant is left in .cache/fuzz-found:
# .cache/fuzz-target FILE  runs it again.
#
# Needs clang with libFuzzer; as root, on Debian, it is installed. Without it the same target runs on random inputs that nothing
# guides, built by any C compiler.
set -eu
cd "$(dirname "$0")/../../.."
seconds=300
case ${1:-} in
[0-9]*)
    seconds=$1
    shift
    ;;
esac

compiler() {
    for name in clang clang-19 clang-16 clang-14; do
        if command -v "$name" >/dev/null && "$name" -fsanitize=fuzzer -x c -o /dev/null - 2>/dev/null <<C
#include <stddef.h>
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) { return data == 0 && size; }
C
        then
            echo "$name"
            return
        fi
    done
}

CC=$(compiler)
if [ -z "$CC" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install clang-14 libclang-rt-14-dev
    CC=$(compiler)
fi
mkdir -p .cache/fuzz .cache/fuzz-found
if [ -z "$CC" ]; then
    echo "no clang with libFuzzer here (Debian: clang-14 and libclang-rt-14-dev): random inputs instead" >&2
    tests/relay/native/build.sh .cache/fuzz-target -DFUZZ -fsanitize=address,undefined -fno-sanitize-recover=all "$(pwd)/tests/relay/native/replay.c"
    exec .cache/fuzz-target "$(date +%s)" $((seconds * 100)) tests/relay/native/corpus/* 2>.cache/fuzz-found/log
fi
export CC
tests/relay/native/build.sh .cache/fuzz-target -DFUZZ -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
exec .cache/fuzz-target -max_total_time="$seconds" -max_len=8192 -len_control=0 -timeout=20 -print_final_stats=1 \
    -artifact_prefix=.cache/fuzz-found/ "$@" .cache/fuzz tests/relay/native/corpus
