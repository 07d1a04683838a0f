#!/usr/bin/env bash
# Train on several GPUs: tools/dist_train.sh CONFIG GPUS [options of train.py]
# On a machine without a GPU GPUS is the number of processes.
# On several machines, run it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
# TORCHRUN_ARGS has further options of torchrun.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

require 2 "$@"
start_here "$2" "$tools/train.py" "$1" "${@:3}"
