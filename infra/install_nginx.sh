#!/usr/bin/env bash
# nginx for the test of infra/nginx.conf: taken if it is there, installed where apt may be used, else that test is skipped.
set -euo pipefail
command -v nginx >/dev/null && exit 0
run=(env)
if [ "$(id -u)" -ne 0 ]; then
    run=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${run[@]}" true 2>/dev/null; then
    echo "No nginx, and no right to install it: the test of infra/nginx.conf will be skipped." >&2
    exit 0
fi
install=(apt-get install -y -qq --no-install-recommends nginx-light)
{ "${run[@]}" apt-get update -qq && "${run[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >/dev/null; } ||
    echo "nginx could not be installed: the test of infra/nginx.conf will be skipped." >&2
