#!/bin/sh
# Installs those of the named Debian packages that the base image lacks. Runs while it is built.
set -eu

missing=""
for package in "$@"; do
    status="$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)"
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

export DEBIAN_FRONTEND=noninteractive
set --
[ -e /opt/vbisect/ca.pem ] && set -- -o Acquire::https::CaInfo=/opt/vbisect/ca.pem
apt-get "$@" -q update
# shellcheck disable=SC2086  # one word for each package
apt-get "$@" -q install --yes --no-install-recommends $missing
rm -rf /var/lib/apt/lists/*
