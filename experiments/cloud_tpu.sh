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
BUCKET=${BUCKET:-}
MOUNT=${MOUNT:-}
WAIT=${WAIT:-60}
TRIES=${TRIES:-3}
SYNC_EVERY=${SYNC_EVERY:-300}
PATIENCE=${PATIENCE:-120}

# With what a host ends whose sweep had to make room for another one.
TAKEN_OVER=3

say() { echo "cloud_tpu: $*" >&2; }

need() {
    local name
    for name in "$@"; do
        [ -n "${!name:-}" ] || { say "$name is not set; experiments/cloud_tpu.md says what it is."; exit 2; }
    done
}

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}; }

# The state of the slice; NONE where there is no such slice, UNANSWERED where gcloud cannot tell.
state() {
    local errors found
    errors=$(mktemp)
    if ! found=$(tpu describe "$NAME" --format='value(state)' 2>"$errors"); then
        found=UNANSWERED
        if grep -q NOT_FOUND "$errors"; then found=NONE; else cat "$errors" >&2; fi
    fi
    rm -f "$errors"
    echo "$found"
}

everywhere() { tpu ssh "$NAME" --worker=all --command="$1"; }

create() {
    tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
}

# Whether what `create` has said means that there are no machines now. A quota that is exceeded has
# the same code, but does not change by waiting.
lacks_machines() {
    grep -q 'no more capacity' "$1" ||
        { grep -qE 'RESOURCE_EXHAUSTED|"code": 8\b' "$1" && ! grep -qi quota "$1"; }
}

# The images have a Python that is too old; uv brings one.
install() {
    local archive
    archive=$(mktemp -d)/physlm.tar.gz
    tar -czf "$archive" --exclude=./runs --exclude=./.git -C "$(dirname "$0")/.." . || return 1
    tpu scp "$archive" "$NAME": --worker=all || return 1
    # The last step says that the others are done.
    # shellcheck disable=SC2016
    everywhere 'rm -f ~/physlm.installed &&
        mkdir -p ~/physlm && tar -xzf ~/physlm.tar.gz -C ~/physlm &&
        python3 -m pip install --quiet --user uv &&
        ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/env &&
        ~/.local/bin/uv pip install --quiet --python ~/env/bin/python -e ~/physlm"[tpu]" &&
        touch ~/physlm.installed' || return 1
}

# The sweep on a slice that is there, which may be without the project.
sweep() {
    everywhere 'test -e ~/physlm.installed' || install || return 1
    everywhere "BUCKET=$(printf %q "$BUCKET") MOUNT=$(printf %q "$MOUNT") \
        SYNC_EVERY=$SYNC_EVERY PATIENCE=$PATIENCE \
        bash ~/physlm/experiments/cloud_tpu.sh host$1"
}

# Until the sweep has ended by itself, on whatever slice there is.
run() {
    local failures=0 unanswered=0 undeleted=0 answered='' now said status words
    words=$(printf ' %q' "$@")
    said=$(mktemp)
    while true; do
        now=$(state)
        [ "$now" = UNANSWERED ] || answered=1
        case $now in
            READY) ;;
            UNANSWERED)
                # Who has never had an answer may have to log in; a network comes back.
                unanswered=$((unanswered + 1))
                if [ -z "$answered" ] && [ "$unanswered" -ge "$TRIES" ]; then
                    say "gcloud could not be asked for the slice in $unanswered tries."
                    exit 1
                fi
                say "gcloud does not say how the slice is, which is left alone; the next try is in $WAIT s."
                sleep "$WAIT"
                continue
                ;;
            PREEMPTED | TERMINATED)
                # It cannot be started again.
                if ! tpu delete "$NAME" --quiet; then
                    undeleted=$((undeleted + 1))
                    [ "$undeleted" -lt "$TRIES" ] || { say "the slice is $now, and cannot be deleted."; exit 1; }
                    sleep "$WAIT"
                fi
                continue
                ;;
            NONE)
                if create 2>&1 | tee "$said" >&2; then
                    continue
                elif lacks_machines "$said"; then
                    say "there is no $TYPE in $ZONE now; the next try is in $WAIT s."
                    sleep "$WAIT"
                elif [ "$(state)" = NONE ]; then
                    say "the slice cannot be created; gcloud says why."
                    exit 1
                fi
                # Else it was preempted before it was ready, for example.
                continue
                ;;
            STOPPED)
                say "the slice is $now: start it, or delete it, and run this again."
                exit 1
                ;;
            *)
                say "the slice is $now; the next look is in $WAIT s."
                sleep "$WAIT"
                continue
                ;;
        esac
        status=0
        sweep "$words" || status=$?
        case $status in
            0) return ;;
            2) exit 2 ;;
            "$TAKEN_OVER")
                say "another run has taken over the slice."
                exit "$TAKEN_OVER"
                ;;
        esac
        case $(state) in
            READY)
                failures=$((failures + 1))
                [ "$failures" -lt "$TRIES" ] || { say "$failures tries have failed."; exit 1; }
                ;;
            PREEMPTED | TERMINATED | NONE)
                say "the slice was preempted; the study goes on with another."
                ;;
        esac
    done
}

# On each host of the slice.
host() {
    local store=$HOME/store sweep status=0
    alone
    if [ -n "$MOUNT" ]; then
        mkdir -p "$store"
        mountpoint -q "$store" || bash -c "$MOUNT" || { say "MOUNT failed: $MOUNT"; exit 1; }
    else
        download "$store"
    fi
    cd ~/physlm
    ~/env/bin/python -m physlm.experiments.sweep "$@" --workdir "$store" \
        --distributed "${PHYSLM_HOSTS:-auto}" &
    sweep=$!
    echo "$sweep" >~/physlm.sweep
    # A preemption asks first; the sweep then leaves a checkpoint of where it is.
    trap 'kill -TERM "$sweep" 2>/dev/null' TERM
    if [ -z "$MOUNT" ]; then
        while kill -0 "$sweep" 2>/dev/null; do
            # It outlives this script, and must hold neither the lock nor the connection.
            sleep "$SYNC_EVERY" >/dev/null 2>&1 9>&- &
            wait -n "$sweep" $! || true
            kill -0 "$sweep" 2>/dev/null || break
            upload "$store" || say "the copy to the bucket failed; the next is in $SYNC_EVERY s."
        done
    fi
    wait "$sweep" || status=$?
    [ "$status" -le 128 ] || wait "$sweep" || status=$?
    # Whoever waits has the same store, and copies it.
    [ ! -e ~/physlm.next ] || exit "$TAKEN_OVER"
    if [ -z "$MOUNT" ] && ! upload "$store"; then
        say "the last copy to the bucket failed."
        [ "$status" != 0 ] || status=1
    fi
    exit "$status"
}

# One sweep at a time on a host. The end of a connection does not end a sweep, so that there may be
# an earlier one. Whatever works for it has the lock, too.
alone() {
    local told='' pid since=0
    exec 9>>~/physlm.lock
    until flock --nonblock 9; do
        touch ~/physlm.next
        pid=$(cat ~/physlm.sweep 2>/dev/null || true)
        if [ -n "$pid" ] && [ "$pid" != "$told" ]; then
            say "an earlier sweep is told to end; this one goes on from there."
            kill -TERM "$pid" 2>/dev/null || true
            told=$pid since=$SECONDS
        elif [ -n "$pid" ] && [ $((SECONDS - since)) -ge "$PATIENCE" ]; then
            kill -KILL "$pid" 2>/dev/null || true
        fi
        sleep 1
    done
    rm -f ~/physlm.next ~/physlm.sweep
}

# A store begins with what the bucket has. One that is there already is newer than that.
download() {
    local errors
    [ ! -d "$1" ] || return 0
    errors=$(mktemp)
    mkdir -p "$1.part"
    if gcloud storage ls "gs://$BUCKET/runs/" >/dev/null 2>"$errors"; then
        gcloud storage rsync --recursive "gs://$BUCKET/runs" "$1.part" || unread
    elif ! grep -q 'matched no objects' "$errors"; then
        cat "$errors" >&2
        unread
    fi
    mv "$1.part" "$1"
}

unread() {
    say "gs://$BUCKET/runs cannot be read, so that nothing is begun here."
    exit 1
}

# Other slices may write there, too: nothing is deleted, and nothing newer is replaced. Damaged
# checkpoints stay here: set aside a second time, one would meet its earlier self.
upload() {
    gcloud storage rsync --recursive --skip-if-dest-has-newer-mtime \
        --exclude='.*orbax-checkpoint-tmp.*|.*[.]lease.*|.*[.]tmp$|.*/damaged_[0-9]+/.*' \
        "$1" "gs://$BUCKET/runs"
}

collect() {
    mkdir -p "$1"
    gcloud storage rsync --recursive --exclude='.*checkpoints/.*' "gs://$BUCKET/runs" "$1"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    run)
        need ZONE
        [ -n "$MOUNT" ] || need BUCKET
        [ $# -gt 0 ] || { say "run needs the name of a study."; exit 2; }
        for word in "$@"; do
            case $word in
                --workdir* | --distributed*)
                    say "$word is given; where results are, and how hosts find each other, is set here."
                    exit 2
                    ;;
            esac
        done
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
