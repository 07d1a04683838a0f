# shellcheck shell=bash
# What the launch scripts share; they source it.
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

# require COUNT "$@": with fewer arguments show the comment at the head of the script and stop.
require() {
    if [ $(($# - 1)) -lt "$1" ]; then
        sed -n '2,/^[^#]/s/^# //p' "$0" >&2
        exit 2
    fi
}

# start_here PROCESSES SCRIPT [ARGUMENTS]: run it PROCESSES times on this machine.
start_here() {
    local torchrun_args meeting
    read -r -a torchrun_args <<<"${TORCHRUN_ARGS:-}"
    if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
        meeting=(--standalone --local_addr=127.0.0.1) # on a port that is free
    else
        meeting=(
            --nnodes="${NNODES:-1}"
            --node_rank="${NODE_RANK:-0}"
            --master_addr="${MASTER_ADDR:-127.0.0.1}"
            --master_port="${PORT:-29500}"
        )
    fi
    exec "$python" "$tools/launch.py" "${meeting[@]}" --nproc_per_node="$1" \
        ${torchrun_args[@]+"${torchrun_args[@]}"} "${@:2}" --launcher pytorch
}

# start_on_slurm PARTITION JOB_NAME SCRIPT [ARGUMENTS]
start_on_slurm() {
    if ! command -v srun >/dev/null; then
        echo "error: srun is not found: start it on a machine of a Slurm cluster" >&2
        exit 2
    fi
    local gpus=${GPUS:-8}
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    local gres=${GRES-gpu:$per_node} srun_args
    read -r -a srun_args <<<"${SRUN_ARGS:-}"
    # two jobs may share a machine; below the ports that Linux itself gives out
    export MASTER_PORT=${PORT:-${MASTER_PORT:-$((20000 + RANDOM % 10000))}}
    exec srun -p "$1" \
        --job-name="$2" \
        ${gres:+--gres="$gres"} \
        --ntasks="$gpus" \
        --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${srun_args[@]+"${srun_args[@]}"} \
        "$python" -u "${@:3}" --launcher slurm
}
