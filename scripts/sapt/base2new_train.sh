#!/usr/bin/env bash
# Trains SAPT on the first half of the classes: scripts/sapt/base2new_train.sh DATASET [SEED]
# CFG=... or --cfg names another config, TRAINER=... or --trainer another trainer.
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" base2new-train "$@"
