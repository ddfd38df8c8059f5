"""What one host of several is given: CONFIG WORKDIR FILE STEPS [ADDRESS NUMBER INDEX].

Writes all fields of its rows of the first steps and of the held-out chunks into FILE, an .npz.
"""

import sys

import numpy as np

from lmjax import opening
from lmjax.data import pipeline
from lmjax.parallel import joining


def main(config, workdir, file, steps, *address):
    if address:
        where, number, index = address
        joining.join(where, int(number), int(index), seconds=120, say=print)
    request = opening.Request(config, workdir, {"train.micro_batch_size": 4})
    with opening.opened(request) as (_, folder, found), opening.prepared(folder, found) as run:
        training = pipeline.iterate(run.data.train_batches(run.program), 0, int(steps), 0)
        held_out = run.data.eval_batches(run.program)
        batches = {f"step {step}": batch for step, batch in enumerate(training)}
        batches |= {f"chunk {chunk}": held_out(chunk) for chunk in range(len(held_out))}
    fields = {
        f"{name}/{field}": rows for name, batch in batches.items() for field, rows in batch.items()
    }
    np.savez(file, **fields)


if __name__ == "__main__":
    main(*sys.argv[1:])
