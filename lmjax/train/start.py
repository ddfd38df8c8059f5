"""What a run starts from, if not from nothing: its own checkpoint, or the weights of another run.

A checkpoint may hold weights alone (that of an imported model does); then the optimizer starts
anew. With `train.init_from` the first state has the parameters of another run's newest checkpoint,
with `train.init_optimizer` its moments, too. The recipe, its schedule included, is this run's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lmjax import fields as fields_lib
from lmjax import objectives, paths
from lmjax.config import Config
from lmjax.data import cache
from lmjax.data import tokenizer as tokenizer_lib
from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer, JsonTokenizer
from lmjax.errors import UserError
from lmjax.families import weights
from lmjax.hf.format import essence
from lmjax.model_config import ModelConfig
from lmjax.nn import heads
from lmjax.train import workdir
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.copied_checkpoints import CopiedCheckpoints, reading
from lmjax.train.setup import Program, counted
from lmjax.train.state import TrainState, with_counters
from lmjax.train.trained import special_ids


def source_config(path: str) -> Config:
    """The config of the run that weights are taken from.

    Raises:
      UserError: there is no run.
    """
    run = workdir.read(path)
    if run is None:
        raise UserError(
            f"config.train.init_from={path} holds no run; give the workdir of one, or import a "
            "model first (tools/import_hf.py)"
        )
    return run.config


def recipe_of(path: str) -> dict[str, Any]:
    """The fields of a run's config, for another one that goes on from its weights."""
    flat = fields_lib.flatten(fields_lib.to_dict(source_config(path)))
    flat |= {"schedule.decay_steps": None, "train.init_from": None}
    return fields_lib.unflatten(flat)


def with_model(raw: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A config file's fields that name no family, over the model of the run that it starts from.

    Raises:
      UserError: there is no such run.
    """
    path = (fields_lib.flatten(raw) | dict(overrides)).get("train.init_from")
    if path is None:
        return raw
    source = source_config(path)
    model = fields_lib.to_dict(source)["model"] | {"num_labels": None}
    return {**raw, "family": source.family, "model": {**model, **raw.get("model", {})}}


def inherit(config: Config) -> Config:
    """Fills what a run that starts from another one's weights has to share with it.

    Raises:
      UserError: there is no such run, or its parameters are not those of this config's model.
    """
    path = config.train.init_from
    if path is None:
        return _from_nothing(config)
    source = source_config(path)
    changes: dict[str, Any] = {}
    if config.objective.begins_with_bos is None and objectives.is_labelled(config):
        before, _ = objectives.describe(source).frame
        changes["objective.begins_with_bos"] = "bos" in before
    if config.model.vocab_size is None:
        changes["model.vocab_size"] = source.model.vocab_size
    folder = paths.join(path, "tokenizer")
    if config.tokenizer.path is None and ids_tokenizer(path) is None:
        changes["tokenizer.path"] = folder
    config = fields_lib.replace(config, changes)
    if not config.train.init_weights:
        if config.train.init_optimizer:
            raise UserError(
                "config.train.init_optimizer=True takes moments, and train.init_weights=False no "
                "weights that they belong to; leave one of them out"
            )
        return config
    _check_shapes(config.model, source.model, path)
    if config.train.init_optimizer and config.model.head != source.model.head:
        raise UserError(
            f"config.train.init_optimizer=True, but {path} was trained with another head, whose "
            "moments do not fit; leave it out"
        )
    if config.train.init_optimizer and source.optimizer.name != config.optimizer.name:
        raise UserError(
            f"config.train.init_optimizer=True, but {path} was trained with optimizer.name="
            f"{source.optimizer.name!r} and this run says {config.optimizer.name!r}; make them one"
        )
    return config


def _from_nothing(config: Config) -> Config:
    """The config of a run that starts from no other one."""
    for name in ("init_optimizer", "init_weights"):
        if getattr(config.train, name) != type(config.train).model_fields[name].default:
            raise UserError(f"config.train.{name} says nothing without train.init_from")
    if not objectives.is_labelled(config):
        return config
    if config.tokenizer.path is None:
        raise UserError(
            f"config.objective.name={config.objective.name!r} trains no tokenizer on its examples; "
            "set train.init_from to the workdir of a trained model, or tokenizer.path"
        )
    if config.objective.begins_with_bos is None:
        is_encoder = config.model.architecture == "encoder"
        return fields_lib.replace(config, {"objective.begins_with_bos": is_encoder})
    return config


def _fresh(model: ModelConfig, source: ModelConfig) -> set[str]:
    """Parameters of a model that one with another head, or other classes, does not have."""
    if not _may_differ(model, source):
        return set()
    mine, theirs = weights.shapes(model), weights.shapes(source)
    return {
        name
        for name in mine
        if name.split("/")[0] in heads.PARAMETERS and theirs.get(name) != mine[name]
    }


def _may_differ(model: ModelConfig, source: ModelConfig) -> bool:
    """Whether two models may have heads of different shapes."""
    return model.head != source.head or not model.predicts_tokens


def _check_shapes(model: ModelConfig, source: ModelConfig, path: str) -> None:
    mine, theirs = weights.shapes(model), weights.shapes(source)
    of_heads = set()
    if _may_differ(model, source):
        of_heads = {n for n in mine | theirs if n.split("/")[0] in heads.PARAMETERS}
    for name in sorted((mine.keys() | theirs.keys()) - of_heads):
        if mine.get(name) != theirs.get(name):
            fields = ", ".join(differences(model, source)) or "nothing else"
            raise UserError(
                f"config.train.init_from={path}: its parameter {name} is "
                f"{theirs.get(name, 'not there')}, this config's is {mine.get(name, 'not there')}; "
                f"what differs: {fields}"
            )


def differences(model: ModelConfig, source: ModelConfig) -> list[str]:
    """What two models compute otherwise, as "model.FIELD (THEIRS -> MINE)"."""
    mine, theirs = (essence(m) | {"vocab_size": m.vocab_size} for m in (model, source))
    names = [name for name in mine | theirs if mine.get(name) != theirs.get(name)]
    return [f"model.{name} ({theirs.get(name)} -> {mine.get(name)})" for name in names]


def check_data(config: Config, known: IdsTokenizer | None) -> None:
    """Refuses to train a new tokenizer for a model that has learned the ids of another one.

    Args:
      config: of the run.
      known: what is known of the tokenizer of its weights; None: all that matters.
    """
    if known is not None and not _has_tokenizer(config):
        raise UserError(
            "this model was imported without its tokenizer, and a new one would give its ids "
            "other meanings; set config.tokenizer.path to its own, or data.path to a store "
            "prepared with it"
        )


def _has_tokenizer(config: Config) -> bool:
    """Whether the config or a prepared store names a tokenizer."""
    return config.tokenizer.path is not None or any(map(cache.is_prepared, config.data.paths))


def check_tokenizer(config: Config, known: IdsTokenizer | None, tokenizer: AnyTokenizer) -> None:
    """Refuses a tokenizer whose special ids are not those of the weights."""
    if known is None:
        return
    got = special_ids(config, tokenizer)
    for name, wanted in special_ids(config, known).items():
        if wanted is not None and got[name] not in (None, wanted):
            raise UserError(
                f"the imported model's {name} id is {wanted}, the tokenizer's is {got[name]}: it "
                "is not the one that the model was trained with"
            )


def ids_tokenizer(path: str) -> IdsTokenizer | None:
    """The tokenizer of a workdir, where only its ids are known."""
    found = _tokenizer(path)
    return found if isinstance(found, IdsTokenizer) else None


def with_own_tokenizer(config: Config, path: str | None) -> Config:
    """For raw text: the config with the imported tokenizer of its workdir, if it has one.

    The workdir's config.json does not name it, so that the folder may be moved. Labelled examples
    go by the tokenizer of the workdir, whatever has become of the folder it was copied from.
    """
    if path is not None and objectives.is_labelled(config) and _tokenizer(path) is not None:
        return fields_lib.replace(config, {"tokenizer.path": paths.join(path, "tokenizer")})
    if path is None or _has_tokenizer(config) or not isinstance(_tokenizer(path), JsonTokenizer):
        return config
    return fields_lib.replace(config, {"tokenizer.path": paths.join(path, "tokenizer")})


def _tokenizer(path: str) -> AnyTokenizer | None:
    """That of a workdir; None where there is none yet."""
    folder = paths.join(path, "tokenizer")
    if paths.read_bytes(paths.join(folder, tokenizer_lib.CONFIG_FILE)) is None:
        return None
    return tokenizer_lib.load(folder)


def restore(
    checkpoints: Checkpoints | CopiedCheckpoints, step: int, program: Program
) -> TrainState:
    """The state of a run's own checkpoint, with a fresh optimizer where it holds none."""
    if not checkpoints.meta(step).get("weights_only"):
        return checkpoints.restore(step, program.abstract, program.shardings)
    return _around_weights(checkpoints, step, program)


def from_run(program: Program) -> tuple[TrainState, str]:
    """The first state of a run with `train.init_from`, and a line on it.

    Raises:
      UserError: there is no checkpoint, or none of an optimizer that is asked for.
    """
    train, theirs = program.config.train, source_config(program.config.train.init_from)
    with reading(paths.join(train.init_from, "checkpoints")) as (checkpoints, step):
        said = f"starting from the weights of {train.init_from} at step {step}"
        if not train.init_optimizer:
            fresh = _fresh(program.config.model, theirs.model)
            state = _around_weights(checkpoints, step, program, fresh)
            parts = sorted({name.split("/")[0] for name in fresh})
            said += f"; fresh: {', '.join(parts)}" * bool(parts)
        elif checkpoints.meta(step).get("weights_only"):
            raise UserError(
                f"config.train.init_optimizer=True, but {train.init_from} holds weights alone, no "
                "moments; leave it out"
            )
        else:
            target = with_counters(program.abstract, program.shardings, counted(theirs))
            trained = checkpoints.restore(step, *target)
            moments = _restarted(trained.opt_state)
            state = dataclasses.replace(program.init_around(trained.params), opt_state=moments)
            said += " and its optimizer's moments"
    # A head that is another one was said to be fresh.
    mine = program.config.model.model_copy(update={"head": theirs.model.head})
    other = differences(mine, theirs.model)
    return state, said + (f"; now computed otherwise: {', '.join(other)}" if other else "")


def _around_weights(
    checkpoints: Checkpoints | CopiedCheckpoints,
    step: int,
    program: Program,
    fresh: Collection[str] = (),
) -> TrainState:
    """A fresh state around the parameters of a checkpoint, but for some that it does not have."""
    wanted, placed = program.abstract.params, program.shardings.params
    if not fresh:
        return program.init_around(checkpoints.restore_params(step, wanted, placed))
    there = [name for name in weights.flat(wanted) if name not in fresh]
    wanted, placed = (
        weights.nested({name: leaves[name] for name in there})
        for leaves in (weights.flat(wanted), weights.flat(placed))
    )
    taken = weights.flat(checkpoints.restore_params(step, wanted, placed))
    params = weights.flat(program.init().params) | taken
    return program.init_around(weights.nested(params))


def _restarted(opt_state: Any) -> Any:
    """The optimizer's state with its schedule back at the beginning."""
    is_schedule = lambda x: isinstance(x, optax.ScaleByScheduleState)
    return jax.tree.map(
        lambda x: x._replace(count=jnp.zeros_like(x.count)) if is_schedule(x) else x,
        opt_state,
        is_leaf=is_schedule,
    )
