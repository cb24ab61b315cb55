#!/usr/bin/env bash
# Tests the prompts of base2new_train.sh on the other classes, and trains those that are missing:
# scripts/sapt/base2new_test.sh DATASET [SEED]
# CFG=... or --cfg names another config, TRAINER=... or --trainer another trainer.
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" base2new-test "$@"
