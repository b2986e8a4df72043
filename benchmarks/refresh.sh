#!/usr/bin/env bash
# models/ with new weights -> benchmarks/results/: every result that depends on the weights.
#
#   benchmarks/refresh.sh DATA PREPARED [LOGS]                                      # a quarter of an hour on two cores
#   MEDIAPIPE_PYTHON=VENV/bin/python benchmarks/refresh.sh DATA PREPARED [LOGS]     # results that measure time, too
#
# PREPARED is the folder of `facerecon-train prepare` with the held-out people. JOBS scripts [2] run side by side; those
# that measure time come last, one after the other, and need a quiet machine. Each script's output is kept in LOGS
# (runs/refresh- and the hash of all model files). You can stop at any time: the same command leaves out what has ended
# well. After a change of the code or of the data, give another LOGS.
set -euo pipefail
usage="usage: benchmarks/refresh.sh DATA PREPARED [LOGS]"
data=$(realpath -m "${1:?$usage}")
prepared=$(realpath -m "${2:?$usage}")
logs=${3:+$(realpath -m "$3")}
mediapipe=${MEDIAPIPE_PYTHON:+$(realpath -s -m "$MEDIAPIPE_PYTHON")} # the link is kept: it says which environment is meant
cache=${DETECTOR_CACHE:+$(realpath -m "$DETECTOR_CACHE")}            # backgrounds for hard_faces.py
cd "$(dirname "$0")/.."
logs=${logs:-runs/refresh-$(cat models/*.onnx models/*.npz models/*.safetensors | sha256sum | cut -c1-8)}
mkdir -p "$logs"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# End the scripts too: each runs in a process group of its own.
stop() {
    for job in $(jobs -p); do kill -- "-$job" || true; done
    exit 130
}
trap stop INT TERM HUP

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

# The same beside others, and alone.
beside() {
    while (($(jobs -pr | wc -l) >= ${JOBS:-2})); do wait -n; done
    set -m
    once "$@" &
    set +m
}
alone() {
    beside "$@"
    wait
}

rm -f "$logs/failed"
# The longest come first, so that none is left alone at the end.
beside crossing python benchmarks/crossing.py --data "$data"
beside accuracy python benchmarks/accuracy.py --data "$data" --prepared "$prepared"
beside evaluate facerecon-train evaluate models/face.safetensors --data "$data" --prepared "$prepared" --out "$logs/evaluate"
beside cuts python benchmarks/cuts.py --data "$data"
beside texture python benchmarks/texture.py --data "$data"
beside hard_faces python benchmarks/hard_faces.py --data "$data" ${cache:+--cache "$cache"}
beside expression python benchmarks/expression.py --data "$data"
beside attention python benchmarks/attention.py --data "$data"
beside privacy python benchmarks/privacy.py --data "$data"
beside pictures python benchmarks/pictures.py
wait
if [[ -f $logs/evaluate/calibration.png ]]; then
    cp "$logs/evaluate/calibration.png" benchmarks/results/
    cp "$logs/evaluate/report.json" benchmarks/results/evaluate.json
    {
        cat << 'END'
# Evaluation with PyTorch

`facerecon-train evaluate models/face.safetensors --data DATA --prepared PREPARED`, without the runtime.
`at_work`, `at_rest`: mean weight where the true weight is above 0.5, and below 0.02.

END
        sed '1,2d; /^## Pictures/,$d' "$logs/evaluate/report.md"
    } > benchmarks/results/evaluate.md
fi

if [[ -n $mediapipe ]]; then
    alone latency python benchmarks/latency.py --mediapipe-python "$mediapipe"
    alone latency_clean python benchmarks/latency.py --model models/face.clean.onnx --mediapipe-python "$mediapipe" --out benchmarks/results/clean/latency.md
    alone latency_detecting python benchmarks/latency.py --detecting --mediapipe-python "$mediapipe"
    alone precisions python benchmarks/precisions.py --data "$data"
    alone cpu python benchmarks/gpu.py --providers cpu
    alone sessions python benchmarks/sessions.py
    alone footprint python benchmarks/footprint.py --mediapipe-python "$mediapipe"
    alone pipelines_cost python benchmarks/pipelines_cost.py --blocks 60 --size 100
    alone takes_time python benchmarks/takes.py --time
    alone archive python benchmarks/archive.py --count 600 --part-size 30 --rounds 2
fi

git diff --stat -- benchmarks/results || true # not every copy is a checkout
echo "Not run: benchmarks/takes.py, which needs three.js and Blender. Next: python benchmarks/pages.py, which rewrites the figures on pages."
[[ ! -f $logs/failed ]]
