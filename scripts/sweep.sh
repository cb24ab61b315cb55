#!/usr/bin/env bash
# python -m sweeps from any directory, with PYTHON, else the active environment, else the checkout's .venv
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$root/.venv/bin/python" ]; then
    PYTHON=$root/.venv/bin/python
fi
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m sweeps "$@"
