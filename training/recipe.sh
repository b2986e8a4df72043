#!/usr/bin/env bash
# DATA -> RUNS/final/face.safetensors, the weights that ship as models/face.safetensors: every step, in order.
#
#   training/recipe.sh DATA [RUNS]
#
# It takes twelve and a half hours on two quiet cores. This is the sum of the steps; they were never run in one go. You can stop it at
# any time, and the same command resumes. RUNS.md says where the shipped weights' own history differs.
# `--backbone` and `--size` stay those of `--init` where a step does not name them.
set -euo pipefail
data=${1:?usage: training/recipe.sh DATA [RUNS]}
runs=${2:-runs}
# Two OpenMP threads that spin lose most of their speed when another process runs.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} OPENBLAS_NUM_THREADS=1

facerecon-train prepare --data "$data" --out "$runs/prepared" --people 8000

# Start from the weights of 28 November 2026 (`compact` at 128 px), which know landmarks. `compact` learns expression and
# gaze from larger crops.
start="$runs/start.safetensors"
if [[ ! -f $start ]]; then
    if ! git -C "$(dirname "$0")" show d9c456c:models/face.safetensors > "$start.part"; then
        rm "$start.part"
        echo "recipe.sh: the weights to start from are in the repository's history; run git fetch --unshallow first" >&2
        exit 2
    fi
    mv "$start.part" "$start"
fi
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/first" --backbone compact --size 160 \
    --init "$start" --pictures 650000 --learning-rate 2e-3 --output-rate 1.0

# Continue with a learning rate that falls to zero again.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/compact" \
    --init "$runs/first/face.safetensors" --pictures 335000 --learning-rate 1.6e-3 --output-rate 1.0 --seed 1

# Grow the network: blocks that are new in `medium` start as the identity.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/medium" --backbone medium --size 160 \
    --init "$runs/compact/face.safetensors" --pictures 375000 --learning-rate 1.6e-3 --output-rate 1.0 --seed 2

# Continue with a learning rate that falls to zero again.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/again" \
    --init "$runs/medium/face.safetensors" --pictures 198000 --learning-rate 1.2e-3 --output-rate 1.0 --seed 6

# The longest run moves expressions and identity most, and landmarks a little away from where people put them. The
# average with the weights that it began with keeps both. A file that is named five times counts five times.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/last" \
    --init "$runs/again/face.safetensors" --pictures 315000 --learning-rate 1.6e-3 --output-rate 1.0 --seed 8
last="$runs/last/face.safetensors"
mkdir -p "$runs/mixed"
facerecon-train average "$last" "$last" "$last" "$last" "$last" "$runs/again/face.safetensors" \
    -o "$runs/mixed/face.safetensors"

# Once more from this average, averaged again.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/mesh" \
    --init "$runs/mixed/face.safetensors" --pictures 190000 --learning-rate 1.6e-3 --output-rate 1.0 --seed 9
mkdir -p "$runs/half"
facerecon-train average "$runs/mesh/face.safetensors" "$runs/mixed/face.safetensors" -o "$runs/half/face.safetensors"

# The longest run.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/long" \
    --init "$runs/half/face.safetensors" --pictures 620000 --learning-rate 2e-3 --output-rate 1.0 --seed 10

# Two shorter ones at half the learning rate, for the shape and for telling people apart. Their average ships.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/places" \
    --init "$runs/long/face.safetensors" --pictures 270000 --learning-rate 1e-3 --output-rate 1.0 --seed 14 \
    --loss shape=1.5 --loss person=12
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/people" \
    --init "$runs/places/face.safetensors" --pictures 200000 --learning-rate 1e-3 --output-rate 1.0 --seed 15 \
    --loss shape=3 --loss person=16
mkdir -p "$runs/final"
facerecon-train average "$runs/places/face.safetensors" "$runs/people/face.safetensors" -o "$runs/final/face.safetensors"

facerecon-train evaluate "$runs/final/face.safetensors" --data "$data" --prepared "$runs/prepared"
