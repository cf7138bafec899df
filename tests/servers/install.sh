#!/bin/sh
# Installs the programs of others that the tests run lbproxy against and measure it beside, from Debian's packages.
# Idempotent, and quick when everything is there. No service is started: the tests start their own, on ports of their own.
#
# Needs root and apt-get. Without them it says what is missing, and the tests that need it are skipped with a reason;
# with CI=true that is a failure, here as in the tests.
set -eu
cd "$(dirname "$0")/../.."
extracted=.cache/servers   # programs taken out of a package without installing it; tests/servers/programs.py looks here too
stream_module=/usr/lib/nginx/modules/ngx_stream_module.so
PATH=$PATH:/usr/sbin:/sbin

# One at a time: a second one waits, and then finds everything there.
mkdir -p .cache
exec 9>.cache/servers.lock
! command -v flock >/dev/null || flock 9

# program:package
programs="haproxy:haproxy nginx:nginx redis-server:redis-server redis-cli:redis-tools curl:curl wrk:wrk nft:nftables
    ip:iproute2 socat:socat iperf3:iperf3 openssl:openssl"
# program:package whose other contents (services, libraries) are not wanted: the program alone is taken out
alone="promtool:prometheus etcd:etcd-server etcdctl:etcd-client"

missing_packages() {
    for pair in $programs; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    [ -e "$stream_module" ] || echo libnginx-mod-stream
}

missing_alone() {
    for pair in $alone; do
        command -v "${pair%%:*}" >/dev/null || [ -x "$extracted/usr/bin/${pair%%:*}" ] || echo "$pair"
    done
}

install_packages() {
    # Debian starts a service it installs, unless this file says 101; one that was there before is put back.
    policy=/usr/sbin/policy-rc.d
    saved=$(mktemp -d)
    [ ! -e "$policy" ] || cp -p "$policy" "$saved/policy"
    trap 'rm -f "$policy"; [ ! -e "$saved/policy" ] || cp -p "$saved/policy" "$policy"; rm -rf "$saved"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"
}

extract() {
    mkdir -p "$extracted/download"
    for pair in "$@"; do
        # as root, apt would otherwise want to write as a user who may not enter this folder
        (cd "$extracted/download" && apt-get -q -o APT::Sandbox::User=root download "${pair##*:}")
        dpkg-deb --fsys-tarfile "$extracted/download/${pair##*:}"_*.deb | tar -x -C "$extracted" "./usr/bin/${pair%%:*}"
    done
    rm -rf "$extracted/download"
}

packages=$(missing_packages)
programs_alone=$(missing_alone)
if [ -n "$packages$programs_alone" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086  # lists of words, here and below
        echo "installing for the tests:" $packages $programs_alone
        apt-get -q update
        # shellcheck disable=SC2086
        [ -z "$packages" ] || (install_packages $packages)
        # shellcheck disable=SC2086
        [ -z "$programs_alone" ] || extract $programs_alone
    fi
fi

packages="$(missing_packages) $(missing_alone)"
if [ "$packages" != " " ]; then
    echo "missing for the tests (needs root and apt-get to install):" $packages >&2
    [ "${CI:-}" != true ] || exit 1
    echo "the tests that need them will be skipped" >&2
fi
