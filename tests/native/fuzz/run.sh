#!/usr/bin/env bash
# Fuzz every target for a time, shared among them, from its corpus; new inputs stay in the build folder, and what fails
# is left there as crash-*. Usage: run.sh BUILD SECONDS
set -euo pipefail

build=$(realpath "$1")
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
targets=(manifest picture settings)
for name in "${targets[@]}"; do
    mkdir -p "$build/found/$name"
    "$build/tests/native/fuzz/${name}_fuzz" -max_total_time=$(($2 / ${#targets[@]})) -print_final_stats=1 -timeout=20 \
        -rss_limit_mb=2048 -artifact_prefix="$build/found/$name-" "$build/found/$name" "$here/corpus/$name"
done
