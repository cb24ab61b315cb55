#!/usr/bin/env bash
# CoOp, SAPT, STSS on CoOp's prompt and TLLA, on ImageNet and its variants: scripts/tlla/ablation.sh [CFG]
# Prompts that are missing are trained first.
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" ablation "$@"
