#!/usr/bin/env bash
# python -m sweeps from any directory, with PYTHON, else the active environment, else the checkout's .venv
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$root/.venv/bin/python" ]; then
    PYTHON=$root/.venv/bin/python
fi
for python in "${PYTHON:-python}" "${PYTHON:-python3}"; do
    found=$(command -v "$python") && break
done
if [ -z "${found:-}" ]; then
    echo "error: there is no program ${PYTHON:-python or python3}: activate an environment, or name one by PYTHON" >&2
    exit 2
fi
lacks='import importlib.util as u; print(*[m for m in ("torch", "clip", "yacs", "dassl", "tqdm") if not u.find_spec(m)])'
if lacks=$("$found" -c "$lacks") && [ -n "$lacks" ]; then
    echo "error: $found lacks the packages ${lacks// /, }: activate the environment that has them, name its python by" \
        "PYTHON=..., or make one: . scripts/setup.sh" >&2
    exit 2
fi
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$found" -m sweeps "$@"
