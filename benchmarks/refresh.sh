#!/usr/bin/env bash
# models/ with new weights -> benchmarks/results/: every result that depends on the weights.
#
#   benchmarks/refresh.sh DATA PREPARED [LOGS]                                      # half an hour on two cores
#   MEDIAPIPE_PYTHON=VENV/bin/python benchmarks/refresh.sh DATA PREPARED [LOGS]     # results that measure time, too
#
# PREPARED is the folder of `facerecon-train prepare` with the held-out people. JOBS scripts [2] run side by side; those
# that measure time come last, one after the other, and need a quiet machine. Each script's output is kept in LOGS
# (runs/refresh- and the model's hash). You can stop at any time: the same command leaves out what has ended well.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?usage: benchmarks/refresh.sh DATA PREPARED [LOGS]}
prepared=${2:?usage: benchmarks/refresh.sh DATA PREPARED [LOGS]}
logs=${3:-runs/refresh-$(sha256sum models/face.onnx | cut -c1-8)}
mkdir -p "$logs"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
trap 'trap - INT TERM; kill 0' INT TERM # scripts in the background would not see Ctrl-C

# NAME COMMAND...: run the command unless it has ended well before.
once() {
    local name=$1 began=$SECONDS
    shift
    [[ ! -f $logs/$name.done ]] || return 0
    if "$@" > "$logs/$name.log" 2>&1; then
        touch "$logs/$name.done"
        echo "$name: $((SECONDS - began)) s"
    else
        echo "$name failed: see $logs/$name.log, and run the command again" >&2
        touch "$logs/failed"
    fi
}

# The same, beside others.
beside() {
    while (($(jobs -pr | wc -l) >= ${JOBS:-2})); do wait -n; done
    once "$@" &
}

rm -f "$logs/failed"
# The longest come first, so that none is left alone at the end.
beside crossing python benchmarks/crossing.py --data "$data"
beside accuracy python benchmarks/accuracy.py --data "$data" --prepared "$prepared"
beside evaluate facerecon-train evaluate models/face.safetensors --data "$data" --prepared "$prepared" --out "$logs/evaluate"
beside cuts python benchmarks/cuts.py --data "$data"
beside texture python benchmarks/texture.py --data "$data"
beside hard_faces python benchmarks/hard_faces.py --data "$data" ${DETECTOR_CACHE:+--cache "$DETECTOR_CACHE"}
beside expression python benchmarks/expression.py --data "$data"
beside attention python benchmarks/attention.py --data "$data"
beside privacy python benchmarks/privacy.py --data "$data"
beside pictures python benchmarks/pictures.py
wait
if [[ -f $logs/evaluate/calibration.png ]]; then
    cp "$logs/evaluate/calibration.png" benchmarks/results/
fi

if [[ -n ${MEDIAPIPE_PYTHON:-} ]]; then
    once latency python benchmarks/latency.py --mediapipe-python "$MEDIAPIPE_PYTHON"
    once latency_detecting python benchmarks/latency.py --detecting --mediapipe-python "$MEDIAPIPE_PYTHON"
    once precisions python benchmarks/precisions.py --data "$data"
    once cpu python benchmarks/gpu.py --providers cpu
    once sessions python benchmarks/sessions.py
    once footprint python benchmarks/footprint.py --mediapipe-python "$MEDIAPIPE_PYTHON"
    once pipelines_cost python benchmarks/pipelines_cost.py --blocks 60 --size 100
    once takes_time python benchmarks/takes.py --time
    once archive python benchmarks/archive.py --count 600 --part-size 30 --rounds 2
fi

git diff --stat -- benchmarks/results || true # not every copy is a checkout
echo "Not run: benchmarks/takes.py, which needs three.js and Blender. Next: the pages, as benchmarks/README.md says."
[[ ! -f $logs/failed ]]
