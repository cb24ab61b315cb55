#!/usr/bin/env bash
# Sets up and runs the whole test suite. With arguments: pytest on tests/ with them, e.g. scripts/test.sh -k prompt
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ $# -eq 0 ]; then
    python -m pytest toolkit/tests  # by itself: a distribution of its own, with its own conftest
fi
python -m pytest "$@"
