#!/usr/bin/env bash
# Sets up and runs the whole test suite. Arguments go to pytest, e.g. scripts/test.sh -k prompt
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec python -m pytest "$@"
