"""The launch recipes of tools/launch, with stand-ins for what only a cluster has.

srun, scontrol and gcloud are small scripts that come first on PATH, write down how they were called
and do as the test says. What they imitate is said where they are.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "tools" / "launch"
BATCH, SPOT = LAUNCH / "slurm.sbatch", LAUNCH / "tpu_spot.sh"
ARGUMENTS = ["--config=configs/a b.py", "--workdir=/shared/it's"]

# One process per code of $CODES, as direct children; answers SIGTERM, reports codes and ends as the
# real one does.
SRUN = r"""
echo "srun $*" >> "$CALLS"
while [ "$1" != python ]; do shift; done
tasks=() index=0 highest=0
trap 'echo "srun killed its tasks" >> "$CALLS"; kill -KILL "${tasks[@]}"' TERM
for code in $CODES; do
  SLURM_PROCID=$index CODE=$code "$@" & tasks+=($!)
  index=$((index + 1))
done
if [ -n "${PREEMPT:-}" ]; then
  until [ "$(ls "$READY" | wc -l)" = "$index" ]; do sleep 0.01; done
  kill -TERM "${tasks[@]}"
fi
for index in "${!tasks[@]}"; do
  wait "${tasks[$index]}"; code=$?
  [ $code = 0 ] || echo "srun: error: node$index: task $index: Exited with exit code $code" >&2
  [ $code -le $highest ] || highest=$code
done
exit $highest
"""

# A process of the run: ends with $CODE, or where that is "term" with 75 on SIGTERM.
PYTHON = r"""
printf '%s|' "$@" >> "$CALLS"; echo >> "$CALLS"
[ "$CODE" = term ] || exit "$CODE"
trap 'exit 75' TERM
touch "$READY/$SLURM_PROCID"
for _ in $(seq 500); do sleep 0.02; done
"""

# Queued resources of one zone: the file `state` is there as long as NAME is; call n of ssh does
# what the file ssh.n says, with the command for the hosts in $COMMAND.
GCLOUD = r"""
shift 2 # compute tpus
echo "$1 $2 ${*//$'\n'/ }" >> "$CALLS"
cd "$(dirname "$CALLS")"
case "$1 $2" in
  "queued-resources create") [ ! -e refused ] && cat becomes > state 2>/dev/null ;;
  "queued-resources describe") cat state ;;
  "queued-resources list") [ ! -e offline ] && if [ -e state ]; then echo mine; fi ;;
  "queued-resources delete") rm state ;;
  "tpu-vm ssh")
    number=$(grep -c '^tpu-vm ssh' "$CALLS")
    for word in "$@"; do case $word in --command=*) COMMAND=${word#--command=} ;; esac; done
    . "./ssh.$number"
    ;;
esac
"""
TPU = {"NAME": "mine", "ZONE": "z", "TYPE": "v5litepod-16", "RUNTIME": "r", "REPO": "https://x/y"}
IN_BUCKET = ["--config=a.py", "--workdir=gs://b/run", "--config.data.path=gs://b/it's here"]
INSTALLED = "exit 0"


@pytest.fixture
def place(tmp_path):
    """A folder with the stand-ins in bin/ and what they were called with in calls."""
    (tmp_path / "bin").mkdir()
    for folder in ("ready", "home"):
        (tmp_path / folder).mkdir()
    scripts = {"srun": SRUN, "python": PYTHON, "gcloud": GCLOUD}
    scripts["scontrol"] = 'echo "scontrol $*" >> "$CALLS"; exit "${REFUSED:-0}"'
    for name, script in scripts.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/usr/bin/env bash\n{script}\n")
        file.chmod(0o755)
    (tmp_path / "calls").touch()
    (tmp_path / "becomes").write_text("ACTIVE\n")
    return tmp_path


# A shell cannot trap what was ignored when it began, as it is behind `nohup` and in the background.
_HEARING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def start(place, script, arguments, **variables):
    environment = os.environ | {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "CALLS": str(place / "calls"),
        "READY": str(place / "ready"),
        "SLURM_JOB_ID": "12",
        "SLURM_CPUS_PER_TASK": "4",
        "PAUSE": "0.01",
    }
    return subprocess.Popen(
        [sys.executable, "-c", _HEARING, "bash", script, *arguments],
        env=environment | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(place, script, arguments, **variables):
    """Exit code, what was said on the standard error stream, calls of the stand-ins."""
    process = start(place, script, arguments, **variables)
    _, said = process.communicate(timeout=30)
    return process.returncode, said, (place / "calls").read_text().splitlines()


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to that")


def ended(process):
    """Its exit code; what it has left behind is ended, too."""
    try:
        return process.wait(10)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stderr.close()


@pytest.mark.parametrize("script", [BATCH, SPOT], ids=lambda path: path.name)
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


def batch_options():
    """Of the lines that sbatch reads: those before the first command."""
    head = BATCH.read_text().split("\nset ")[0]
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", head, re.MULTILINE))


def test_a_batch_job_can_be_queued_again_and_is_warned():
    options = batch_options()
    assert len(options) == BATCH.read_text().count("\n#SBATCH ")
    assert "requeue" in options
    assert options["open-mode"] == "append"  # or the log would begin anew
    assert re.fullmatch(r"TERM@\d{3,}", options["signal"])  # to the processes, in time for a save
    assert options["ntasks-per-node"] == "1"


def test_a_finished_batch_job_is_not_queued_again(place):
    code, _, calls = run(place, BATCH, ARGUMENTS, CODES="0 0")
    assert code == 0
    (srun, *tasks) = calls
    assert "--cpus-per-task=4" in srun
    assert "--kill-on-bad-exit=0" in srun  # a process may leave while another saves
    assert tasks == ["-m|lmjax.main|--config=configs/a b.py|--workdir=/shared/it's|"] * 2


@pytest.mark.parametrize("codes", ["75", "75 75", "0 75", "75 0"])
def test_a_saved_batch_job_is_queued_again_once(place, codes):
    code, said, calls = run(place, BATCH, ARGUMENTS, CODES=codes)
    assert code == 0
    assert calls.count("scontrol requeue 12") == 1
    assert "queued again as job 12" in said


@pytest.mark.parametrize(
    ("codes", "expected"),
    [("1", 1), ("1 1", 1), ("75 1", 1), ("0 75 74", 74), ("9 75 75 1", 1), ("75 124", 124)],
)
def test_an_error_of_any_process_ends_the_batch_job(place, codes, expected):
    code, said, calls = run(place, BATCH, ARGUMENTS, CODES=codes)
    assert code == expected
    assert not [call for call in calls if call.startswith("scontrol")]
    assert "Exited with exit code" in said  # nothing of what is said is lost


def test_sigterm_reaches_the_processes_of_a_batch_job(place):
    """SLURM signals the tasks of a step, not what they have started."""
    code, _, calls = run(place, BATCH, ARGUMENTS, CODES="term term", PREEMPT="1")
    assert code == 0
    assert calls.count("scontrol requeue 12") == 1


def test_a_cancelled_batch_job_ends_and_is_not_queued_again(place):
    """scancel signals the script; it leaves srun alone, which would kill what is saving."""
    process = start(place, BATCH, ARGUMENTS, CODES="term")
    until(lambda: os.listdir(place / "ready"))
    process.terminate()
    assert ended(process) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    calls = (place / "calls").read_text()
    assert "scontrol" not in calls
    assert "srun killed" not in calls


def test_a_batch_job_that_cannot_be_queued_again_says_so(place):
    code, said, _ = run(place, BATCH, ARGUMENTS, CODES="75", REFUSED="1")
    assert code == 75
    assert "job 12 cannot be queued again; give the same sbatch command" in said


def test_a_batch_job_without_arguments_is_refused(place):
    code, said, calls = run(place, BATCH, [])
    assert (code, calls) == (2, [])
    assert said.startswith("usage: sbatch")
    assert said.count("\n") == 1


def spot(place, *ssh, arguments=IN_BUCKET, **variables):
    """Runs tpu_spot.sh; `ssh` says what each call of ssh does. Also returns the calls' verbs."""
    for number, script in enumerate(ssh, start=1):
        (place / f"ssh.{number}").write_text(f"{script}\n")
    code, said, calls = run(place, SPOT, arguments, **TPU | variables)
    verbs = [line.split()[1] for line in calls]
    return code, said, [verb for verb in verbs if verb not in ("describe", "list")], calls


def test_a_slice_is_asked_for_used_and_deleted(place):
    code, _, verbs, calls = spot(place, INSTALLED, "exit 0", PROJECT="p")
    assert code == 0
    assert verbs == ["create", "ssh", "ssh", "delete"]
    (create,) = [line for line in calls if line.startswith("queued-resources create")]
    for flag in ("--spot", "--node-id=mine", "--accelerator-type=v5litepod-16", "--project=p"):
        assert flag in create.split()
    assert all("--zone=z" in line for line in calls if line.startswith("queued"))
    assert sum("--worker=all" in line for line in calls) == 2
    (delete,) = [line for line in calls if line.startswith("queued-resources delete")]
    assert "--force" in delete  # with its machines


PREEMPTIONS = {
    "saved": "echo 'lmjax exit code 75'; echo SUSPENDING > state; exit 75",
    "saved, not yet known": "echo 'lmjax exit code 75'; exit 75",
    "lost": "echo SUSPENDED > state; exit 255",
    "its machines gone": "rm state; exit 255",
    "hosts lost others": "echo 'lmjax exit code 124'; echo SUSPENDED > state; exit 124",
}


@pytest.mark.parametrize("kind", PREEMPTIONS)
def test_a_preempted_slice_is_replaced(place, kind):
    code, _, verbs, _ = spot(place, INSTALLED, PREEMPTIONS[kind], INSTALLED, "exit 0")
    assert code == 0
    assert verbs == ["create", "ssh", "ssh", "delete", "create", "ssh", "ssh", "delete"]


def test_a_slice_that_fails_to_come_is_asked_for_again(place):
    (place / "becomes").write_text("FAILED\n")
    (place / "ssh.1").write_text("exit 0\n")
    (place / "ssh.2").write_text("exit 0\n")
    process = start(place, SPOT, IN_BUCKET, **TPU)
    until(lambda: (place / "calls").read_text().count("queued-resources delete") >= 2)
    (place / "becomes").write_text("ACTIVE\n")
    assert ended(process) == 0
    assert not (place / "state").exists()


@pytest.mark.parametrize(
    ("codes", "expected"), [((1,), 1), ((75, 1), 1), ((0, 124, 75), 124), ((124, 1, 75), 1)]
)
def test_an_error_ends_it_and_deletes_the_slice(place, codes, expected):
    says = "; ".join(f"echo 'worker: lmjax exit code {code}'" for code in codes)
    code, said, verbs, _ = spot(place, INSTALLED, f"{says}; exit 75")
    assert code == expected
    assert verbs == ["create", "ssh", "ssh", "delete"]
    assert f"the run ended with exit code {expected}" in said


def test_a_lost_connection_is_taken_up_again(place):
    code, _, verbs, _ = spot(place, INSTALLED, "exit 255", "exit 255", "exit 0")
    assert code == 0
    assert verbs == ["create", "ssh", "ssh", "ssh", "ssh", "delete"]


def test_an_installation_that_fails_ends_it(place):
    code, said, verbs, _ = spot(place, "exit 3")
    assert code == 1
    assert verbs == ["create", "ssh", "delete"]
    assert "could not be installed" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["waiting", "training"])
def test_a_signal_deletes_the_slice(place, when, number):
    (place / "becomes").write_text("ACTIVE\n" if when == "training" else "WAITING_FOR_RESOURCES\n")
    (place / "ssh.1").write_text("exit 0\n")
    (place / "ssh.2").write_text('touch "$READY/trains"; exec sleep 60\n')
    process = start(place, SPOT, IN_BUCKET, **TPU, PAUSE="0.01" if when == "training" else "60")
    sign = {"training": place / "ready" / "trains", "waiting": place / "state"}[when]
    until(lambda: sign.exists() and sign.read_text() in ("", "WAITING_FOR_RESOURCES\n"))
    process.send_signal(number)
    assert ended(process) == (130 if number == signal.SIGINT else 143)
    assert not (place / "state").exists()
    assert "queued-resources delete" in (place / "calls").read_text()


def test_what_hosts_are_told_to_run(place):
    """The command itself, in a shell: a second connection follows the run of the first."""
    here = place / "home" / "lmjax"
    here.mkdir()
    program = place / "home" / "env" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(
        '#!/usr/bin/env bash\nprintf \'%s|\' "$@" >> "$READY/started"\necho trains\n'
        "trap 'exit 75' TERM\nfor _ in $(seq 500); do sleep 0.02; done\n"
    )
    program.chmod(0o755)
    # The first connection is lost; then the host is shut down, and all that it runs gets SIGTERM.
    lost = 'cd "$HOME"; timeout 0.3 bash -c "$COMMAND"; exit 255'
    shut_down = 'cd "$HOME"; kill $(cat lmjax/run.pid "$READY/pid"); bash -c "$COMMAND"'
    code, said, verbs, _ = spot(place, INSTALLED, lost, shut_down, INSTALLED, "exit 0")
    assert code == 0
    assert verbs == ["create", "ssh", "ssh", "ssh", "delete", "create", "ssh", "ssh", "delete"]
    started = (place / "ready" / "started").read_text()
    assert started == f"-m|lmjax.main|{'|'.join(IN_BUCKET)}|"
    assert (here / "run.code").read_text() == "75\n"
    assert "connecting again" in said


@pytest.mark.parametrize("name", TPU)
def test_a_slice_without_a_name_or_kind_is_refused(place, name):
    code, said, _, calls = spot(place, **{name: ""})
    assert (code, calls) == (2, [])
    assert said.startswith(f"error: {name} is not set; usage: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "no --workdir"),
        (["--workdir=runs/mine"], "--workdir=runs/mine is not in a bucket"),
        (["--workdir=gs://"], "--workdir=gs:// is not in a bucket"),
        (["--workdir=gs://b/r", "--config=a.py"], "no --config.data.path"),
        ([*IN_BUCKET, "--config.data.eval_path=x"], "--config.data.eval_path=x is not in a bucket"),
        ([*IN_BUCKET[:2], "--config.data.path=/s"], "--config.data.path=/s is not in a bucket"),
        ([*IN_BUCKET, "--config.tokenizer.path=t"], "--config.tokenizer.path=t is not in a bucket"),
    ],
)
def test_what_a_slice_would_take_along_is_refused(place, arguments, why):
    code, said, _, calls = spot(place, arguments=arguments)
    assert (code, calls) == (2, [])
    assert said.startswith(f"error: {why}")
    assert said.count("\n") == 1


def test_a_run_goes_on_by_its_workdir_alone(place):
    code, _, verbs, _ = spot(place, INSTALLED, "exit 0", arguments=["--workdir=gs://b/run"])
    assert (code, verbs) == (0, ["create", "ssh", "ssh", "delete"])


def test_a_slice_of_others_is_left_alone(place):
    (place / "state").write_text("ACTIVE\n")
    code, said, verbs, _ = spot(place)
    assert (code, verbs) == (2, [])
    assert "mine is there already in z" in said


@pytest.mark.parametrize("what", ["refused", "offline"])
def test_nothing_is_deleted_that_was_not_there(place, what):
    (place / what).touch()
    code, said, verbs, _ = spot(place)
    assert (code, verbs) == (1, ["create"] if what == "refused" else [])
    assert "see " in said


def jobset():
    (found,) = yaml.safe_load_all((LAUNCH / "gke_jobset.yaml").read_text())
    return found


def test_the_jobset_has_a_pod_for_each_host_of_its_slice():
    found = jobset()
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["spec"]["network"]["enableDNSHostnames"]
    (slices,) = found["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert job["parallelism"] == job["completions"] == int(rows) * int(columns) // chips == 4
    assert job["completionMode"] == "Indexed"
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    assert any(argument.startswith("--workdir=gs://") for argument in container["args"])


def test_the_jobset_tells_mistakes_from_preemptions():
    spec = jobset()["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")  # all pods, or none
    disrupted, mistake = job["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Count"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert mistake["action"] == "FailJob"
    codes = mistake["onExitCodes"]
    assert (codes["operator"], codes["values"]) == ("In", [1])  # of 75 there is none: it counts
    assert codes["containerName"] == pod["containers"][0]["name"]
    assert spec["failurePolicy"]["maxRestarts"] > 10
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]  # what FailJob is called there
    assert pod["terminationGracePeriodSeconds"] >= 120


def test_the_jobset_is_not_root_and_its_user_is_that_of_the_image():
    pod = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    user, _, group = instructions()["USER"][-1].partition(":")
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["runAsGroup"] == int(group)
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def instructions():
    """Of the Dockerfile, by name."""
    text = re.sub(r"^#.*\n", "", (LAUNCH / "Dockerfile").read_text(), flags=re.MULTILINE)
    found = {}
    for name, rest in re.findall(r"^([A-Z]+) (.*)$", text.replace("\\\n", " "), re.MULTILINE):
        found.setdefault(name, []).append(rest)
    return found


def test_the_image_passes_signals_on_and_is_not_root():
    found = instructions()
    assert found["ENTRYPOINT"] == ['["python", "-m", "lmjax.main"]']
    user = found["USER"][-1].partition(":")[0]
    assert int(user) > 0
    assert any(f"--uid {user} " in line for line in found["RUN"])
    assert found["FROM"] == ["python:3.12-slim"]


def test_the_image_holds_what_is_there():
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for line in instructions()["COPY"]:
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in allowed


def test_extras_of_the_recipes_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    texts = [(LAUNCH / name).read_text() for name in ("Dockerfile", "gke_jobset.yaml")]
    named = re.findall(r"\bEXTRA=([\w,]+)", "\n".join(texts))
    named += re.findall(r"lmjax\[([\w,]+)\]", SPOT.read_text())
    assert len(named) == 4
    assert {extra for each in named for extra in each.split(",")} <= {*extras, "k8s"}
