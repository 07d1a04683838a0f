#!/usr/bin/env bash
# Evaluate on several GPUs: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
# On a machine without a GPU GPUS is the number of processes.
# On several machines, run it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
# TORCHRUN_ARGS has further options of torchrun.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

require 3 "$@"
start_here "$3" "$tools/test.py" "$1" "$2" "${@:4}"
