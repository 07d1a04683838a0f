#!/usr/bin/env bash
# Train on a Slurm cluster:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [options of train.py]
# GPUS, GPUS_PER_NODE, GRES, CPUS_PER_TASK and SRUN_ARGS say what to ask for, PORT where the
# processes meet. Machines without a GPU: GPUS is the number of processes, GRES= empty.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

require 3 "$@"
if [ $# -gt 3 ] && [ "${4#-}" = "$4" ]; then
    set -- "${@:1:3}" --work-dir "${@:4}"
fi
start_on_slurm "$1" "$2" "$tools/train.py" "${@:3}"
