#!/usr/bin/env bash
# A study on a Cloud TPU slice that may be preempted; experiments/cloud_tpu.md explains it.
#
#     ZONE=us-central2-b BUCKET=my-bucket experiments/cloud_tpu.sh run retry_rate --scale paper
#     ZONE=us-central2-b BUCKET=my-bucket experiments/cloud_tpu.sh collect runs
#     ZONE=us-central2-b experiments/cloud_tpu.sh delete
set -euo pipefail

NAME=${NAME:-physlm}
TYPE=${TYPE:-v4-8}
VERSION=${VERSION:-tpu-ubuntu2204-base}
SPOT=${SPOT-1}
MOUNT=${MOUNT:-}
WAIT=${WAIT:-60}
TRIES=${TRIES:-3}
SYNC_EVERY=${SYNC_EVERY:-300}

say() { echo "cloud_tpu: $*" >&2; }

need() {
    local name
    for name in "$@"; do
        [ -n "${!name:-}" ] || { say "$name is not set; experiments/cloud_tpu.md says what it is."; exit 2; }
    done
}

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}; }

state() { tpu describe "$NAME" --format='value(state)' 2>/dev/null || true; }

everywhere() { tpu ssh "$NAME" --worker=all --command="$1"; }

create() {
    tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
}

# The images have a Python that is too old; uv brings one.
install() {
    local archive
    archive=$(mktemp -d)/physlm.tar.gz
    tar -czf "$archive" --exclude=./runs --exclude=./.git -C "$(dirname "$0")/.." .
    tpu scp "$archive" "$NAME": --worker=all
    # shellcheck disable=SC2016
    everywhere 'mkdir -p ~/physlm && tar -xzf ~/physlm.tar.gz -C ~/physlm &&
        python3 -m pip install --quiet --user uv &&
        ~/.local/bin/uv venv --quiet --python 3.12 ~/env &&
        ~/.local/bin/uv pip install --quiet --python ~/env/bin/python -e ~/physlm"[tpu]"'
}

# Until the sweep has ended by itself, on whatever slice there is.
run() {
    local failures=0 status words
    words=$(printf ' %q' "$@")
    while true; do
        case $(state) in
            READY) ;;
            CREATING | STARTING | RESTARTING | REPAIRING)
                sleep "$WAIT"
                continue
                ;;
            *)
                # What was preempted cannot be started again.
                tpu delete "$NAME" --quiet 2>/dev/null || true
                if ! create; then
                    say "there is no $TYPE in $ZONE now; the next try is in $WAIT s."
                    sleep "$WAIT"
                    continue
                fi
                install
                ;;
        esac
        status=0
        everywhere "BUCKET=$(printf %q "$BUCKET") MOUNT=$(printf %q "$MOUNT") \
            SYNC_EVERY=$SYNC_EVERY bash ~/physlm/experiments/cloud_tpu.sh host$words" || status=$?
        [ "$status" = 0 ] && return
        [ "$status" = 2 ] && exit 2
        if [ "$(state)" = READY ]; then
            failures=$((failures + 1))
            [ "$failures" -lt "$TRIES" ] || { say "$failures tries have failed."; exit 1; }
        else
            say "the slice was preempted; the study goes on with another."
        fi
    done
}

# On each host of the slice.
host() {
    local store=$HOME/store sweep status=0
    mkdir -p "$store"
    if [ -n "$MOUNT" ]; then
        mountpoint -q "$store" || bash -c "$MOUNT"
    else
        gcloud storage rsync --recursive "gs://$BUCKET/runs" "$store" || true
    fi
    cd ~/physlm
    ~/env/bin/python -m physlm.experiments.sweep "$@" --workdir "$store" \
        --distributed "${PHYSLM_HOSTS:-auto}" &
    sweep=$!
    # A preemption asks first; the sweep then leaves a checkpoint of where it is.
    trap 'kill -TERM "$sweep" 2>/dev/null' TERM
    if [ -z "$MOUNT" ]; then
        while kill -0 "$sweep" 2>/dev/null; do
            sleep "$SYNC_EVERY" &
            wait -n "$sweep" $! || true
            kill -0 "$sweep" 2>/dev/null && upload "$store"
        done
    fi
    wait "$sweep" || status=$?
    [ "$status" -le 128 ] || wait "$sweep" || status=$?
    [ -n "$MOUNT" ] || upload "$store"
    exit "$status"
}

upload() {
    gcloud storage rsync --recursive --delete-unmatched-destination-objects \
        --exclude='.*orbax-checkpoint-tmp.*|.*[.]lease.*' "$1" "gs://$BUCKET/runs"
}

collect() {
    mkdir -p "$1"
    gcloud storage rsync --recursive --exclude='.*checkpoints/.*' "gs://$BUCKET/runs" "$1"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    run)
        need ZONE BUCKET
        [ $# -gt 0 ] || { say "run needs the name of a study."; exit 2; }
        run "$@"
        ;;
    host) host "$@" ;;
    collect)
        need BUCKET
        collect "${1:-runs}"
        ;;
    create | install)
        need ZONE
        "$command"
        ;;
    delete)
        need ZONE
        tpu delete "$NAME" --quiet
        ;;
    *)
        say "there are run, collect, delete, create and install, not '$command'."
        exit 2
        ;;
esac
