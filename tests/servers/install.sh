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
zookeeper_jar=/usr/share/java/zookeeper.jar   # the package of that name would bring a desktop's Java with it
PATH=$PATH:/usr/sbin:/sbin

# One at a time: a second one waits, and then finds everything there.
mkdir -p .cache
exec 9>.cache/servers.lock
! command -v flock >/dev/null || flock 9

# program:package
programs="haproxy:haproxy nginx:nginx redis-server:redis-server redis-cli:redis-tools curl:curl wrk:wrk nft:nftables
    ip:iproute2 socat:socat iperf3:iperf3 knotd:knot java:default-jre-headless openssl:openssl"
# program:package of which nothing else is wanted: no service, no libraries. The program alone is taken out.
alone="promtool:prometheus etcd:etcd-server etcdctl:etcd-client"

missing_packages() {
    for pair in $programs; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    [ -e "$stream_module" ] || echo libnginx-mod-stream
    [ -e "$zookeeper_jar" ] || echo libzookeeper-java
}

missing_alone() {
    for pair in $alone; do
        command -v "${pair%%:*}" >/dev/null || [ -x "$extracted/usr/bin/${pair%%:*}" ] || echo "$pair"
    done
}

has_consul() {
    command -v consul >/dev/null || [ -x "$extracted/usr/bin/consul" ]
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

extract_alone() {
    rm -rf "$extracted/download"
    mkdir -p "$extracted/download"
    for pair in "$@"; do
        # as root, apt would otherwise want to write as a user who may not enter this folder
        (cd "$extracted/download" && apt-get -q -o APT::Sandbox::User=root download "${pair##*:}")
        dpkg-deb --fsys-tarfile "$extracted/download/${pair##*:}"_*.deb | tar -x -C "$extracted" "./usr/bin/${pair%%:*}"
    done
    rm -rf "$extracted/download"
}

# Of Debian's releases only bullseye has Consul (1.8.7). Its package is looked up with lists of its own, on the mirror that this
# machine's apt uses already: apt's sources and lists stay as they are.
extract_consul() {
    mirror=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs:[[:space:]]*//p' | tr ' ' '\n' |
        grep -E '/debian/?$' | head -n1)
    [ -n "$mirror" ] || mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]*\/debian\/?)[[:space:]].*/\2/p' | head -n1)
    [ -n "$mirror" ] || { echo "Consul: no Debian mirror in apt's sources" >&2; return; }
    own=$(pwd)/$extracted/consul-lists
    rm -rf "$own"
    mkdir -p "$own/lists/partial" "$own/cache/archives/partial"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] $mirror bullseye main" >"$own/sources.list"
    set -- -q -o Dir::Etc::SourceList="$own/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$own/lists" -o Dir::Cache="$own/cache" -o Acquire::Check-Valid-Until=false \
        -o Acquire::Languages=none -o APT::Sandbox::User=root
    # A mirror that has dropped bullseye is no failure of the other installs: what is missing is said below.
    if apt-get "$@" update && (cd "$own" && apt-get "$@" download consul/bullseye); then
        dpkg-deb --fsys-tarfile "$own"/consul_*.deb | tar -x -C "$extracted" ./usr/bin/consul
    fi
    rm -rf "$own"
}

packages=$(missing_packages)
programs_alone=$(missing_alone)
if [ -n "$packages$programs_alone" ] || ! has_consul; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing for the tests:" $packages $programs_alone $(has_consul || echo consul)
        apt-get -q update
        # shellcheck disable=SC2086  # lists of words
        [ -z "$packages" ] || (install_packages $packages)
        # shellcheck disable=SC2086
        [ -z "$programs_alone" ] || extract_alone $programs_alone
        has_consul || extract_consul
    fi
fi

packages="$(missing_packages) $(missing_alone)"
has_consul || packages="$packages consul(bullseye's)"
if [ "$packages" != " " ]; then
    echo "missing for the tests (needs root and apt-get to install):" $packages >&2
    [ "${CI:-}" != true ] || exit 1
    echo "the tests that need them will be skipped" >&2
fi
