#!/usr/bin/env bash
# TLLA from ImageNet to ten other datasets: scripts/tlla/cross_dataset.sh [CFG]
# Prompts that are missing are trained first.
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" cross-dataset "$@"
