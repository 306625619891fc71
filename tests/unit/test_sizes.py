"""Sizes are drawn as their distribution says, and a file of them is read or refused in one line."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from fabric.askers import askings_of, mean_bytes
from fabric.asking import Asking, responses
from fabric.errors import RequestError
from fabric.ideal import payload_mbps
from fabric.keys import Links, Requests
from fabric.sizes import DISTRIBUTIONS, Sizes, bins, sizes_of

HOSTS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_rises_from_nothing_to_all(name: str) -> None:
    """In bytes and shares; its mean is that of its draws, as far as so heavy a tail lets one see."""
    sizes = sizes_of(name, Path())
    nbytes, shares = np.array(sizes.points).T
    assert (np.diff(nbytes) > 0).all() and (np.diff(shares) > 0).all() and (shares[0], shares[-1]) == (0, 1)
    drawn = [sizes.at(share) for share in (np.arange(100_000) + 0.5) / 100_000]
    assert np.mean(drawn) == pytest.approx(sizes.mean(), rel=0.01)
    assert sizes.scaled(0.1).mean() == pytest.approx(sizes.mean() / 10)


def test_web_searches_have_the_mean_that_is_published() -> None:
    """1.7 MB, and half of them are below 80 kB."""
    sizes = sizes_of("websearch", Path())
    assert sizes.mean() == pytest.approx(1.71e6, rel=0.01) and 50_000 < sizes.at(0.5) < 80_000 and sizes.at(0) == 1


FILES = {
    "with a heading": ("bytes,share\n0,0\n10,50\n30,100\n", ((0, 0), (10, 0.5), (30, 1))),
    "of shares": ("100,0.5\n\n200,1\n", ((100, 0), (100, 0.5), (200, 1))),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_is_read(tmp_path: Path, what: str) -> None:
    """Shares or percents; where it does not begin with none of the flows, so many have its smallest size."""
    text, points = FILES[what]
    (tmp_path / "own.csv").write_text(text)
    found = sizes_of("./own.csv", tmp_path)
    assert np.array(found.points) == pytest.approx(np.array(points)) and found.at(1) == points[-1][0] and found.at(0.5) == points[-2][0]


BAD = {
    "no name": ("websarch", None, "got websarch; accepted: websearch, data-mining, or a file, ./sizes.csv; write one of those"),
    "no file": ("./own.csv", None, "got ./own.csv, which cannot be read: No such file or directory; accepted: websearch, data-mining, or a file, ./sizes.csv; check the path"),
    "words": ("./own.csv", "0,0\n10,x\n", "got '10,x' in line 2 of ./own.csv; accepted: bytes,share; write e.g. 10000,0.15"),
    "one column": ("./own.csv", "0,0\n10\n", "got '10' in line 2 of ./own.csv; accepted: bytes,share; write e.g. 10000,0.15"),
    "falling": ("./own.csv", "0,0\n10,0.5\n5,1\n", "got 3 points in ./own.csv; accepted: two lines or more of rising bytes and shares, the last share 1 or 100; write e.g. 0,0 and 10000,0.5 and 100000,1"),
    "not all": ("./own.csv", "0,0\n10,0.5\n", "got 2 points in ./own.csv; accepted: two lines or more of rising bytes and shares, the last share 1 or 100; write e.g. 0,0 and 10000,0.5 and 100000,1"),
    "nothing": ("./own.csv", "", "got 0 points in ./own.csv; accepted: two lines or more of rising bytes and shares, the last share 1 or 100; write e.g. 0,0 and 10000,0.5 and 100000,1"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_distribution_is_refused(tmp_path: Path, what: str) -> None:
    """With the line, and what is accepted."""
    name, text, words = BAD[what]
    if text is not None:
        (tmp_path / "own.csv").write_text(text)
    with pytest.raises(RequestError) as caught:
        sizes_of(name, tmp_path)
    assert str(caught.value) == words


def test_both_ends_draw_the_same_sizes() -> None:
    """Each connection its own; without a distribution all are alike."""
    asking = Asking("a", "b", 4, 0, 5.0, True, "requests0/a/b", 1, DISTRIBUTIONS["websearch"])
    assert list(islice(responses(asking), 50)) == list(islice(responses(asking), 50))
    other = Asking("a", "c", 4, 0, 5.0, True, "requests0/a/c", 1, DISTRIBUTIONS["websearch"])
    assert list(islice(responses(asking), 50)) != list(islice(responses(other), 50))
    assert set(islice(responses(Asking("a", "b", 4, 700, 5.0, True, "x", 1)), 5)) == {700}


def test_everybody_asks_everybody_at_a_stated_load() -> None:
    """A connection for each pair; together a client's answers take half of its link."""
    one, links = Requests(servers="all", load=0.5, request=1024, sizes="websearch", scale=0.1), Links(mbps=10, mtu=9000)
    found = askings_of(0, one, HOSTS, links, 7, Path())
    assert [(asking.client, asking.server) for asking in found] == [(a, b) for a in HOSTS for b in HOSTS if a != b]
    rates = {client: sum(asking.rate_hz for asking in found if asking.client == client) for client in HOSTS}
    assert list(rates.values()) == pytest.approx([0.5 * payload_mbps(10, 9000) * 1e6 / 8 / 171_125] * 4)
    assert len({asking.draw for asking in found}) == len(found) and mean_bytes(one, Path()) == pytest.approx(171_125)


def test_a_stated_load_of_one_size() -> None:
    """Towards servers in turn, too."""
    found = askings_of(0, Requests(servers=("d",), load=0.1, request=4, response=10_000), HOSTS, Links(mbps=10), 7, Path())
    assert [(asking.client, asking.server) for asking in found] == [("a", "d"), ("b", "d"), ("c", "d")]
    assert found[0].rate_hz == pytest.approx(0.1 * payload_mbps(10, 1500) * 1e6 / 8 / 10_000) and found[0].sizes == ()


def test_every_size_is_in_one_bin() -> None:
    """Whose end it does not pass."""
    found = bins([1, 1000, 1001, 3000, 10**7, 3 * 10**7, 3 * 10**7 + 1])
    assert found == [(1000, [0, 1]), (3000, [2, 3]), (10**7, [4]), (3 * 10**7, [5]), (None, [6])]
    assert bins([]) == [] and Sizes(((0, 0.0), (1, 1.0))).at(0) == 1
