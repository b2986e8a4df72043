#!/usr/bin/env bash
# DATA -> RUNS/compact/face.safetensors, the weights that ship as models/face.safetensors: every step, in order. With
# BIGGER=1 in the environment also RUNS/distilled/face.safetensors, taught by a bigger network. These weights are for
# comparison and do not ship.
#
#   training/recipe.sh DATA [RUNS]
#
# The shipped weights were made with the code, the rendered people and the default losses of commit e955ed4: check out
# that commit to make them again. The next weights come from today's people, labels and losses: see RUNS.md.
#
# It takes four hours on two cores with AVX-512. This is the sum of the steps; they were never run in one go. You can stop
# it at any time, and the same command resumes.
set -euo pipefail
data=${1:?usage: training/recipe.sh DATA [RUNS]}
runs=${2:-runs}
# Two OpenMP threads that spin lose most of their speed when another process runs.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} OPENBLAS_NUM_THREADS=1

facerecon-train prepare --data "$data" --out "$runs/prepared" --people 8000

# Train a slightly bigger network than the shipped network, with the default weights of the losses.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/first" --backbone mobile \
    --pictures 1400000

# Continue, with landmarks as the main goal.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/second" \
    --init "$runs/first/face.safetensors" --pictures 380000 --learning-rate 1e-3 --output-rate 0.5 --seed 1 \
    --loss landmarks=60 --loss person=2 --loss shape=0.3

# Continue once more, and average both networks.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/third" \
    --init "$runs/second/face.safetensors" --pictures 330000 --learning-rate 1e-3 --output-rate 0.5 --seed 11 \
    --loss landmarks=60 --loss person=3 --loss shape=0.3
facerecon-train average "$runs/second/face.safetensors" "$runs/third/face.safetensors" -o "$runs/mobile.safetensors"

# Train the shipped network from the common layers, taught by the average.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/compact" --backbone compact \
    --init "$runs/mobile.safetensors" --distil "$runs/mobile.safetensors" \
    --pictures 640000 --learning-rate 1.5e-3 --output-rate 0.5 \
    --loss landmarks=60 --loss rendered_landmarks=30 --loss person=3 --loss shape=0.3
facerecon-train evaluate "$runs/compact/face.safetensors" --data "$data" --prepared "$runs/prepared"

[[ ${BIGGER:-0} == 1 ]] || exit 0

# Train a bigger network, with ten times the work per picture.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/resnet18" --backbone resnet18 --bfloat16 \
    --pictures 450000 --learning-rate 1.5e-3 --output-rate 0.4 \
    --loss landmarks=60 --loss rendered_landmarks=15 --loss person=2

# Teach the average of both to the smaller network.
facerecon-train train --data "$data" --prepared "$runs/prepared" --run "$runs/distilled" --bfloat16 \
    --init "$runs/second/face.safetensors" --distil "$runs/second/face.safetensors" "$runs/resnet18/face.safetensors" \
    --pictures 220000 --learning-rate 1e-3 --output-rate 0.5 --seed 2 \
    --loss landmarks=60 --loss rendered_landmarks=30 --loss shape=0.3

facerecon-train evaluate "$runs/distilled/face.safetensors" --data "$data" --prepared "$runs/prepared"
