"""Results travel as JSON and come back the same; what is damaged or fits nothing is refused where it does not."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError
from secondsight.report import decode, encode
from secondsight.report.schema import finite, pack
from support.results import results


@given(st.lists(st.integers(-300, 600), max_size=40), st.sampled_from(["i2", "i4", "f4", "f8"]))
def test_an_array_comes_back_as_it_went(values, dtype):
    packed = pack(np.array(values).reshape(-1, 1), dtype)
    assert packed.shape == [len(values), 1]
    assert packed.array().ravel().tolist() == values


def test_a_damaged_array_is_said_to_be_damaged():
    packed = pack([1, 2, 3], "i4")
    broken = type(packed)(packed.dtype, packed.shape, packed.data[:8])
    with pytest.raises(ValueError, match="damaged"):
        broken.array()


def test_results_come_back_as_they_went():
    made = results(blocks=12, columns=3)
    assert decode(encode(made), "r.json") == made
    assert encode(made) == encode(results(blocks=12, columns=3))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{}", "schema version None"),
        (b'{"schema": 1, "what": "process 1"}', "it has no rows: `compare -o FILE` writes results"),
        (b'{"schema": 99}', "version 99"),
        (b"nonsense", "not a results file"),
        (b'{"schema": 2}', "not a results file"),
    ],
)
def test_what_is_no_results_file_is_refused(raw, said):
    with pytest.raises(InputError, match=said):
        decode(raw, "r.json")


def _packed(**changes):
    def change(document):
        document["rows"][0]["seconds"] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_packed(data="!!!"), r"rows\[0\].seconds: "),
        (_packed(shape=[10**12]), "do not fit the shape"),
        (_packed(shape=[-1]), "nothing has the shape"),
        (_packed(shape=[2]), "do not fit the shape"),
        (
            lambda document: document["rows"][0].update(huge=document["rows"][0]["fate"]),
            r"rows\[0\]: its columns have",
        ),
        (
            lambda document: document["blocks"].update(space=document["rows"][0]["seconds"]),
            "blocks: its columns have",
        ),
        (lambda document: document["rows"][0]["channels"]["primary"].update(data=""), "channels.primary"),
        (
            lambda document: document["rows"][0].update(
                attempts={"x": {"begun": 1, "refused": 1, "allocations": 1, "invalidations": 1}}
            ),
            "there is no order 'x'",
        ),
        (lambda document: document.update(sensitivity={"knob": {"a": []}}), "sensitivity of 'knob'"),
    ],
)
def test_results_that_fit_nothing_are_refused_where_they_do_not(change, said):
    document = json.loads(encode(results(blocks=12, columns=3)))
    change(document)
    with pytest.raises(InputError, match=said):
        decode(json.dumps(document).encode(), "r.json")


def test_only_finite_numbers_reach_json():
    assert finite(math.nan) is None
    assert finite(math.inf) is None
    assert finite(np.float64(1.5)) == 1.5
