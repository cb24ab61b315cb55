#!/usr/bin/env bash
# Tests TLLA with ImageNet's SAPT prompts on one dataset: scripts/tlla/eval.sh DATASET CFG
# Prompts that are missing are trained first. --source names another source.
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" eval "$@"
