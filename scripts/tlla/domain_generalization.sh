#!/usr/bin/env bash
# TLLA on ImageNet and its four variants: scripts/tlla/domain_generalization.sh [CFG]
# Prompts that are missing are trained first.
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" domain-generalization "$@"
