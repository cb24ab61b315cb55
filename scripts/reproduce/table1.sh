#!/usr/bin/env bash
# The paper's domain generalization, ViT-B/16, all rows that are here: scripts/reproduce/table1.sh
# The table afterwards: python parse_test_res.py OUT --table
# Data and runs: DATA=... OUT=... or --data, --out. JOBS=n or --jobs n at once. --dry-run prints. All flags: --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../sweep.sh" table1 "$@"
