"""RoBERTa: BERT's network, trained longer and without sentence pairs (Liu et al. 2019).

Sizes are those of the released checkpoints (github.com/facebookresearch/fairseq, examples/roberta):
with their vocabulary of 50,265 ids and masked-LM head 124,697,433 and 355,412,057 parameters.
Positions are looked up from the row behind the padding id's, which was 1; so two rows of the table
stand before the first position.
"""

from __future__ import annotations

from typing import Any

from lmjax.families import bert

BASE: dict[str, Any] = bert.BASE | {
    "position_offset": 2,
    "token_types": 1,
    "norm_epsilon": 1e-5,
    "init": "normal",
}

PRESETS: dict[str, dict[str, Any]] = {
    "base": BASE | {"hidden_size": 768, "num_layers": 12, "num_heads": 12},
    "large": BASE | {"hidden_size": 1024, "num_layers": 24, "num_heads": 16},
}
