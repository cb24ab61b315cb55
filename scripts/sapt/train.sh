#!/usr/bin/env bash
# Trains SAPT prompts, seeds 1 2 3: scripts/sapt/train.sh DATASET CFG [CTP NCTX SHOTS CSC]
# scripts/sapt/train.sh oxford_pets vit_b16_c4_ep50 end 4 16 False --data ~/data
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" train "$@"
