#!/bin/sh
# Train the prior of protein backbones in the background, on one core and at the lowest priority:
#     scripts/train_backbones.sh BACKBONES.h5 OUT
# It writes a checkpoint every five minutes; the same command resumes. OUT/prior holds the model when it is done.
# It starts at usual priority, because reading a file has a time limit that the lowest one misses on a busy machine.
set -eu
file=$1 out=$2
mkdir -p "$out"
OMP_NUM_THREADS=1 setsid nohup "${PYTHON:-python}" -m deft_ct train prior --data "backbones:$file" \
    --out "$out" --channels 128 --layers 2 --steps 16000 --batch-size 16 --no-progress >> "$out/training.txt" 2>&1 &
process=$!
(sleep 60; renice -n 19 -p "$process") > /dev/null 2>&1 &
echo "process $process, log $out/log.csv"
