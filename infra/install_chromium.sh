#!/usr/bin/env bash
# Chromium for the browser tests: taken if it is there, installed where apt may be used, else the tests say that they skip.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
if ! command -v apt-get >/dev/null; then
    echo "No Chromium, and no apt-get to install it: the browser tests will be skipped." >&2
    exit 0
fi
run=(env)
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || {
        echo "No Chromium, and no right to install it (sudo apt-get install chromium): the browser tests will be skipped." >&2
        exit 0
    }
    run=(sudo -n)
fi
install=(apt-get install -y -qq --no-install-recommends chromium)
{ "${run[@]}" apt-get update -qq && "${run[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >/dev/null; } ||
    echo "Chromium could not be installed: the browser tests will be skipped." >&2
