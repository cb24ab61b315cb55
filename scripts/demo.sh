#!/usr/bin/env bash
# Sets up, then trains and tests everything on the embedded benchmark. Arguments go to scripts/demo.py.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec python scripts/demo.py "$@"
