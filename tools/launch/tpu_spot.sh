#!/usr/bin/env bash
# Trains on a spot TPU slice of one host or many: asks for one, installs lmjax, starts the same
# command on all hosts, asks for another slice when this one is preempted, and deletes it at the
# end. On any machine with gcloud that stays on, say in tmux; Ctrl-C deletes the slice, too.
#
#   export NAME=mine ZONE=us-west4-a TYPE=v5litepod-16 RUNTIME=v2-alpha-tpuv5-lite
#   export REPO=https://HOST/OWNER/lmjax.git
#   bash tools/launch/tpu_spot.sh --config=configs/llama3_1b.py --workdir=gs://BUCKET/runs/mine \
#     --config.data.path=gs://BUCKET/store
#
# Also: PROJECT, where it is not gcloud's; REF, the branch, tag or commit of REPO; PAUSE, seconds
# between questions (30). Its rules were tried with a stand-in for gcloud (tests/test_launch.py); it
# has never been run on a TPU.

set -uo pipefail

readonly PREEMPTED=75 # saved: the same command goes on

stop() { # CODE WHY
  echo "error: $2" >&2
  exit "$1"
}

check() { # the arguments of lmjax.main
  local name argument workdir= config= data=
  for name in NAME ZONE TYPE RUNTIME REPO; do
    [ -n "${!name:-}" ] || stop 2 "$name is not set; usage: NAME=N ZONE=Z TYPE=T RUNTIME=V \
REPO=URL $0 --config=FILE --workdir=gs://... --config.data.path=gs://..."
  done
  for argument in "$@"; do
    case $argument in
      --workdir=gs://?*) workdir=yes ;;
      --config.data.path=gs://?* | --config.data.sources=?*) data=yes ;;
      --config.data.eval_path=gs://?* | --config.tokenizer.path=gs://?*) ;;
      --config=?*) config=yes ;;
      --workdir=* | --config.data.path=* | --config.data.eval_path=* | --config.tokenizer.path=*)
        stop 2 "$argument is not in a bucket, and a slice leaves no disk behind; give a gs:// URL"
        ;;
    esac
  done
  [ -n "$workdir" ] || stop 2 "no --workdir; give --workdir=gs://BUCKET/..."
  [ -z "$config" ] || [ -n "$data" ] ||
    stop 2 "no --config.data.path; give that of a prepared store, gs://BUCKET/..."
}

state() { # a word of Google's, DELETED, or nothing where gcloud does not answer
  local names
  gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" \
    --format='value(state.state)' 2>/dev/null && return
  names=$(gcloud compute tpus queued-resources list "${where[@]}" \
    --format='value(name.basename())') || return
  grep -qxF "$NAME" <<<"$names" || echo DELETED
}

delete() {
  gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force ||
    [ "$(state)" = DELETED ] || return
  asked=
}

leave() { # whatever the end is: what was asked for is given back
  trap '' INT TERM HUP
  [ -z "$child" ] || kill "$child" 2>/dev/null
  rm -rf "$folder"
  [ -z "$asked" ] || delete ||
    echo "error: $NAME in $ZONE could not be deleted and may cost money; delete it by hand:" \
      "gcloud compute tpus queued-resources delete $NAME --zone=$ZONE --force" >&2
}

pause() {
  sleep "${PAUSE:-30}" &
  child=$!
  wait "$child" # which, unlike sleep, a signal ends at once
  child=
}

ask() { # for a slice, until there is one; fails where it is refused
  local now before=
  asked=yes
  if ! gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" "${where[@]}" \
    --accelerator-type="$TYPE" --runtime-version="$RUNTIME" --spot; then
    asked=
    return 1
  fi
  while now=$(state); [ "$now" != ACTIVE ]; do
    [ "$now" = "$before" ] || echo "$NAME: ${now:-unknown}" >&2
    case $now in FAILED | SUSPEND* | DELET*) return 1 ;; esac
    before=$now
    pause
  done
}

on_all() { # COMMAND, on every host; what they print is also in the file `said`
  tee "$folder/said" <"$folder/pipe" &
  local reader=$! code
  gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=all --command="$1" \
    --ssh-flag=-oServerAliveInterval=30 >"$folder/pipe" 2>&1 </dev/null &
  child=$!
  wait "$child"
  code=$?
  child=
  wait "$reader"
  return "$code"
}

gone() { # preempted: known some time after its hosts were lost, and when gcloud answers
  local now=
  while [ -z "$now" ]; do
    pause
    now=$(state)
  done
  [ "$now" != ACTIVE ]
}

install() {
  on_all "set -e; export PATH=\$HOME/.local/bin:\$PATH
command -v uv >/dev/null || python3 -m pip install -q --user uv
rm -rf lmjax env; git clone -q $(printf %q "$REPO") lmjax
git -C lmjax checkout -q $(printf %q "${REF:-HEAD}")
uv venv -q --python 3.12 env
uv pip install -q --python env/bin/python -e './lmjax[tpu,gcs]'"
}

# The run is not the child of the connection: it outlives one that is lost, and the same words then
# follow it again. Its shell stays for the exit code when the host is shut down.
train() { # the arguments of lmjax.main
  on_all "cd lmjax
if [ ! -e run.pid ]; then
  nohup sh -c 'trap : TERM; \"\$@\"; echo \$? >run.code' sh ../env/bin/python -m lmjax.main \
$(printf '%q ' "$@") >run.out 2>&1 </dev/null &
  echo \$! >run.pid
fi
tail -n 100 -f --pid=\"\$(cat run.pid)\" run.out
code=\$(cat run.code || echo 137)
echo \"lmjax exit code \$code\"; exit \"\$code\""
}

errors() { # exit codes of hosts but for 0 and 75, lowest first
  sed -n 's/.*lmjax exit code \([0-9][0-9]*\).*/\1/p' "$folder/said" |
    grep -vx -e 0 -e "$PREEMPTED" | sort -n
}

follow() { # the run on a slice; returns only when it is to go on with another one
  local error
  until train "$@"; do
    gone && return
    if error=$(errors); then
      error=${error%%$'\n'*}
      stop "$error" "the run ended with exit code $error; what it said is above"
    fi
    grep -q "lmjax exit code $PREEMPTED" "$folder/said" && return
    echo "$NAME: the connection was lost; connecting again" >&2
  done
  exit 0
}

check "$@"
where=(--zone="$ZONE" ${PROJECT:+"--project=$PROJECT"} --quiet)
case $(state) in
  DELETED) ;;
  '') stop 1 "gcloud cannot list what is in $ZONE; see its message above" ;;
  *) stop 2 "$NAME is there already in $ZONE; choose another NAME, or delete it" ;;
esac

asked= child= first=yes
folder=$(mktemp -d)
mkfifo "$folder/pipe"
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

while :; do
  if ask; then
    if install; then
      follow "$@"
    elif ! gone; then
      stop 1 "lmjax could not be installed; see the messages above"
    fi
  elif [ -n "$first" ] && [ -z "$asked" ]; then
    stop 1 "there is no such slice to ask for; see gcloud's message above"
  fi
  first=
  echo "$NAME: not there, or not any more; asking for another slice" >&2
  until [ -z "$asked" ] || delete; do pause; done
  pause
done
