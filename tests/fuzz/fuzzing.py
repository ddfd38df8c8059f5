"""What the fuzz tests share: how much they try, what they damage things with, what must come of it.

The property of all of them: whatever a user's file holds, what reads it gives a right answer or a
`UserError`, whose text is one line of cause and fix. Any other exception would reach the command
line as a defect.

Examples follow from the tests alone (`derandomize`), so that a run repeats the one before;
LMJAX_FUZZ_EXAMPLES=1500 tries as many of each. The property stands inside of a test, which makes
what it damages:

    def test_lines(tmp_path):
        @fuzz
        @given(content=damaged(b"..."))
        def property(content): ...

        property()
"""

import copy
import os
import random
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from lmjax.errors import UserError

fuzz = settings(
    max_examples=int(os.environ.get("LMJAX_FUZZ_EXAMPLES", "20")),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    phases=[Phase.generate, Phase.shrink],
)

# What programs have stumbled over.
PIECES = [
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xf0\x9f\x98", b"e\xcc\x81", b"\xe2\x80\xa8", b"\xc2\x85"),
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"\n\n",
        b"\x0b",
        b"\x1c",
        b" ",
        b'{"text": "',
        b'"}',
        b"{",
        b"[",
        b"]",
    ),
    *(b"1e999", b"-Infinity", b"NaN", b"9" * 5000, b"-0", b"\\ud800", b"\\u0000", b'"text":', b","),
    *(b"[" * 3000, b'{"a":' * 3000),
]
VALUES = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 10**400, 0.5, -0.5, 1e308, 5e-324),
    *(float("nan"), float("inf"), "", "x", "None", "..", "../../x", "/etc/passwd", "a\nb", "\0"),
    *("\ud800", "é" * 300, [], [1], ["x"], [[[]]], [None], {}, {"a": 1}, {"": None}, "auto"),
]


def outcome(action):
    """What `action` returns; None, after a look at its line, where it raises UserError."""
    try:
        return action()
    except UserError as error:
        line = str(error)
        assert "\n" not in line
        assert "; " in line, f"no fix: {line}"
        assert len(line) < 3000, line
        return None


@st.composite
def damaged(draw, content, pieces=PIECES, most=4):
    """Bytes with some bits flipped, parts lost, doubled or overwritten, nasty pieces put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(found)))
        kind = draw(
            st.sampled_from(["flip", "lose", "insert", "overwrite", "double", "cut", "junk"])
        )
        size = draw(st.integers(1, 64))
        if kind == "flip" and at < len(found):
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "lose":
            del found[at : at + size]
        elif kind == "insert":
            found[at:at] = draw(st.sampled_from(pieces))
        elif kind == "overwrite":
            piece = draw(st.sampled_from(pieces))
            found[at : at + len(piece)] = piece
        elif kind == "double":
            found[at:at] = found[at : at + size]
        elif kind == "cut":
            del found[at:]
        elif kind == "junk":
            found[at:at] = random.Random(draw(st.integers(0, 2**32))).randbytes(size)
    return bytes(found)


def write_damaged(data, whole, folder):
    """Writes files of these contents by name, one of them damaged as hypothesis draws it."""
    name = data.draw(st.sampled_from(sorted(whole)))
    for other, content in whole.items():
        (folder / other).write_bytes(content)
    (folder / name).write_bytes(data.draw(damaged(whole[name])))


def places(document, within=()):
    """Where the parts of a JSON document are, as tuples of keys and indices."""
    children = ()
    if isinstance(document, dict):
        children = document.items()
    elif isinstance(document, list):
        children = enumerate(document[:3])  # others are like these
    for key, value in children:
        yield (*within, key)
        yield from places(value, (*within, key))


@st.composite
def damaged_json(draw, document, values=VALUES, most=2):
    """A JSON document with some parts lost, or others in their place."""
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        where = list(places(found))
        if not where:
            break
        *parents, last = draw(st.sampled_from(where))
        node = found
        for key in parents:
            node = node[key]
        kind = draw(st.sampled_from(["replace", "replace", "lose", "shift"]))
        if kind == "lose":
            del node[last]
        elif kind == "shift" and type(node[last]) in (int, float) and abs(node[last]) < 2**53:
            node[last] += draw(st.sampled_from([-1, 1, 1000, 0.5]))
        else:
            node[last] = copy.deepcopy(draw(st.sampled_from(values)))  # `values` stays as it is
    return found


def peak_mib():
    """Most memory that this process ever had, in MiB; 0 where nobody says."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return int(status.read_text().split("VmHWM:")[1].split()[0]) >> 10
