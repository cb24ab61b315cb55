#!/usr/bin/env bash
# Sets up and runs the whole test suite, three processes on two cores, as some tests wait. With arguments: pytest on
# tests/ with them, e.g.
# scripts/test.sh -k prompt
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ $# -eq 0 ]; then
    python -m pytest toolkit/tests  # by itself: a distribution of its own, with its own conftest
fi
export PYTEST_XDIST_AUTO_NUM_WORKERS="${PYTEST_XDIST_AUTO_NUM_WORKERS:-$(( ($(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 ))}"
python -m pytest --numprocesses auto --dist worksteal "$@"
