"""Parts are measured once, saved, and chosen by name."""

import pytest

from lab.runner import parts_under, run_parts
from walras.errors import WalrasError


def test_what_is_in_the_folder_is_not_measured_again(tmp_path):
    asked = []
    parts = {name: (lambda name=name: asked.append(name) or {"of": name}) for name in ("a:1", "a:2", "b")}
    first = run_parts(parts, tmp_path / "kept", ["a"])
    assert asked == ["a:1", "a:2"] and parts_under(first, "a") == {"1": {"of": "a:1"}, "2": {"of": "a:2"}}
    assert run_parts(parts, tmp_path / "kept") == {**first, "b": {"of": "b"}} and asked[2:] == ["b"]
    with pytest.raises(WalrasError, match="no part `c`; choose among a, a:1, a:2, b"):
        run_parts(parts, None, ["c"])
