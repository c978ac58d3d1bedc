#!/bin/bash
# Trains on several machines of a Slurm cluster, and goes on in a new job when the time is up:
#
#     sbatch examples/slurm.sh PHOTOS runs/photos --recipe paper --batch-size 1024
#
# PHOTOS and the run folder lie where all machines see them. docs/distributed.md explains the rest.
#SBATCH --job-name=convit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

set -u
if [ $# -lt 2 ]; then
    echo "usage: sbatch $0 DATA OUT [option of 'convit train' ...]" >&2
    exit 2
fi
data=$1 out=$2
shift 2

what=("$data" --out "$out" "$@")
if [ -f "$out/config.yaml" ]; then
    what=(--resume "$out")
fi

processes=${SLURM_GPUS_ON_NODE:-1}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes))

srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$processes" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m convit train "${what[@]}"
status=$?

# Out of time: the state is saved. Anything else that failed would fail again.
if [ $status -ne 0 ] && tail -n 1 "$out/log.txt" 2>/dev/null | grep -q "stopped by SIGTERM"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
