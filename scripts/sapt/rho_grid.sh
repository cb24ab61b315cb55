#!/usr/bin/env bash
# Chooses SAPT's rho on the source's validation images: scripts/sapt/rho_grid.sh DATASET CFG [SHOTS]
# The choice is in rho.json: give it to the other scripts by --rho.
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" rho-grid "$@"
