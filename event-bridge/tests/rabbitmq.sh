#!/usr/bin/env bash
# A private RabbitMQ for tests: Debian's rabbitmq-server, in a directory of its own, on loopback ports of its own.
#
#   rabbitmq.sh ensure                     makes sure that it is installed; installs it when run as root. Exit 77: cannot be had
#   rabbitmq.sh run DIR PORT DIST EPMD     becomes the server (exec), until it is ended; DIR keeps its files between runs
#   rabbitmq.sh names EPMD                 becomes the name server that `run` needs (exec), until it is ended
#
# Whoever starts `run` and `names` ends them by their process ids. Nothing outside DIR is read or written, and an installed
# service, its ports, its name server and its cookie are left alone.
set -euo pipefail

server=/usr/lib/rabbitmq/bin/rabbitmq-server

here() { [ -x "$server" ] && command -v erl >/dev/null && command -v epmd >/dev/null; }

ensure() {
    here && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "rabbitmq-server is not installed, and only root can install it here (apt-get install rabbitmq-server)" >&2
        exit 77
    fi
    # The package would start a service of its own; a policy says no unless there is a policy already.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=yes
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends rabbitmq-server)
    { "${install[@]}" || { apt-get update -q && "${install[@]}"; }; } >&2 || true
    [ -z "$made" ] || rm -f "$policy"
    here || { echo "rabbitmq-server could not be installed" >&2; exit 77; }
}

run() {
    local dir=$1 port=$2 dist=$3 epmd=$4
    mkdir -p "$dir/home" "$dir/mnesia" "$dir/log"
    cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.local = 127.0.0.1:$port
log.file.level = warning
# A test machine's disk and memory are its own business.
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.8
CONF
    : >"$dir/enabled_plugins"
    export HOME="$dir/home" LANG=C.UTF-8
    export ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1
    export RABBITMQ_NODENAME="holdfast-$port@localhost" RABBITMQ_NODE_PORT="$port" RABBITMQ_DIST_PORT="$dist"
    export RABBITMQ_MNESIA_BASE="$dir/mnesia" RABBITMQ_LOG_BASE="$dir/log" RABBITMQ_PID_FILE="$dir/pid"
    export RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf"
    export RABBITMQ_ADVANCED_CONFIG_FILE="$dir/none.config" RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins"
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
    # So told, its script becomes the server instead of waiting for it: the process id is the server's.
    export RUNNING_UNDER_SYSTEMD=true
    exec "$server"
}

names() {
    exec env ERL_EPMD_ADDRESS=127.0.0.1 epmd -port "$1"
}

case "${1:-}" in
    ensure) ensure ;;
    run) shift; run "$@" ;;
    names) shift; names "$@" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
