#!/usr/bin/env bash
# Makes gpu-wheels/: what stages.lm imports and a usual PyTorch image lacks (see tests/gpu), for
# Python 3.12 on x86-64 Linux. The folder is small, to be carried to a machine without a network.
#   infra/gpu_wheels.sh           download it (needs pip and a package registry, on any system)
#   infra/gpu_wheels.sh --unpack  on the other machine: make gpu-wheels/site of it, for PYTHONPATH
#   infra/gpu_wheels.sh --list    the names of the packages; what these need comes with them
set -euo pipefail
cd "$(dirname "$0")/.."
packages="pydantic open-data-contract-standard xxhash"
most=$((64 * 1024 * 1024)) # bytes
folder=gpu-wheels

download() {
    local python=.venv/bin/python platforms="" tag size
    "$python" -m pip --version >/dev/null 2>&1 || python=python3
    # pip takes each of these as it stands: a newer glibc does not include the older ones
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
        platforms="$platforms --platform ${tag}_x86_64"
    done
    rm -rf "$folder"
    # shellcheck disable=SC2086  # several words each
    "$python" -m pip download --quiet --only-binary=:all: --implementation cp \
        --python-version 3.12 $platforms --dest "$folder/partial" $packages
    mv "$folder"/partial/*.whl "$folder"
    rmdir "$folder/partial"
    ls -l "$folder" | awk 'NR > 1 {printf "%8d kB  %s\n", $5 / 1000, $NF}'
    size=$(cat "$folder"/*.whl | wc -c | tr -d ' ')
    echo "$folder: $((size / 1000)) kB"
    if [ "$size" -gt "$most" ]; then
        echo "$folder is larger than 64 MiB: too much to carry to other machines" >&2
        exit 1
    fi
}

unpack() {
    rm -rf "$folder/site" "$folder/partial"
    python3 -m pip install --quiet --no-index --no-deps --no-compile \
        --target "$folder/partial" "$folder"/*.whl
    mv "$folder/partial" "$folder/site" # at once: a site that is there is whole
}

case "${1:-}" in
"") download ;;
--unpack) unpack ;;
--list) echo "$packages" ;;
*)
    sed -n 's/^#  *infra/infra/p' "$0" >&2
    exit 2
    ;;
esac
