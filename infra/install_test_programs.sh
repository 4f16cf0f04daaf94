#!/usr/bin/env bash
# The programs of tests that pip cannot install: Chromium for the browser tests, nginx for the test of infra/nginx.conf.
# Taken if they are there, installed where apt may be used, else the tests that need them are skipped and say so.
set -euo pipefail

there() {
    for name in "$@"; do
        command -v "$name" >/dev/null && return 0
    done
    return 1
}

missing=()
there chromium chromium-browser google-chrome || missing+=(chromium)
there nginx || missing+=(nginx-light)
[ "${#missing[@]}" -gt 0 ] || exit 0

skip() {
    echo "${missing[*]}: $1; the tests that need them will be skipped." >&2
    exit 0
}

there apt-get || skip "not installed, and there is no apt-get"
as_root=(env)
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || skip "not installed; to install: sudo apt-get install ${missing[*]}"
    as_root=(sudo -n)
fi
"${as_root[@]}" apt-get update -qq || skip "apt-get update failed"
for program in "${missing[@]}"; do
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$program" >/dev/null ||
        echo "$program could not be installed: the tests that need it will be skipped." >&2
done
