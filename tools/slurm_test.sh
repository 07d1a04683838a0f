#!/usr/bin/env bash
# Evaluate on a Slurm cluster:
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
# GPUS, GPUS_PER_NODE, GRES, CPUS_PER_TASK and SRUN_ARGS say what to ask for, PORT where the
# processes meet. Machines without a GPU: GPUS is the number of processes, GRES= empty.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

require 4 "$@"
start_on_slurm "$1" "$2" "$tools/test.py" "${@:3}"
