"""Dropout by tokens' keys: compiled == PyTorch's operations to the bit, and so is the gradient."""

import pytest
import torch

from user_model.ops import token_dropout
from user_model.ops.dropout import LEAST_COMPILED, keep_mask, mix, mix_integers
from user_model.ops.dropout_cpu import PART_TOKENS

# Less than a word of four units, less than a vector, whole ones, one too many.
WIDTHS = [1, 6, 16, 64, 33]
TOKENS = [1, PART_TOKENS, 2 * PART_TOKENS + 77]
P = [0.0, 0.2, 0.5, 0.99999]


def make(n_tokens, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(n_tokens, width, generator=generator, dtype=torch.float64).to(dtype)
    return x, mix(torch.arange(n_tokens) + mix_integers(width))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("n_tokens", TOKENS)
@pytest.mark.parametrize("width", WIDTHS)
def test_compiled_has_the_same_bits(width, n_tokens, p, dtype, run_with_gradients):
    x, keys = make(n_tokens, width, dtype)

    def form(backend):
        return lambda x: (token_dropout(x, keys, p, backend=backend),)

    expected = run_with_gradients(form("torch"), {"x": x}, ["out"])
    found = run_with_gradients(form("cpu"), {"x": x}, ["out"])
    assert torch.equal(found["out"], expected["out"])
    assert torch.equal(found["dx"], expected["dx"])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_no_token_is_no_error(backend):
    assert token_dropout(*make(0, 12), 0.3, backend=backend).shape == (0, 12)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_it_keeps_what_the_mask_keeps(backend):
    _, keys = make(70, 33)
    out = token_dropout(torch.ones(70, 33), keys, 0.75, backend=backend)
    assert torch.equal(out, 4.0 * keep_mask(keys, 33, 0.75))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_what_is_no_number_is_not_dropped(backend):
    """As in a product with zeros: a broken activation stays one."""
    _, keys = make(70, 33)
    out = token_dropout(torch.full((70, 33), torch.nan), keys, 0.5, backend=backend)
    assert out.isnan().all()


def test_views_are_as_good_as_copies(same_on_views):
    x, keys = make(133, 12)
    same_on_views(lambda x: (token_dropout(x, keys, 0.3, backend="cpu"),), {"x": x})


def test_every_second_key_is_a_view_too():
    x, keys = make(133, 12)
    found = token_dropout(x[:66], keys[1::2], 0.3, backend="cpu")
    assert torch.equal(found, token_dropout(x[:66], keys[1::2].clone(), 0.3, backend="torch"))


def test_gradcheck():
    x, keys = make(5, 6, torch.float64)
    leaf = x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_dropout(x, keys, 0.3, backend="cpu"), [leaf])


def test_the_op_keeps_torchs_rules():
    x, keys = make(70, 12)
    torch.library.opcheck(torch.ops.hydrarec.token_dropout_cpu, (x.requires_grad_(), keys, 0.3))


def test_auto_compiles_where_the_result_is_large():
    def took(n_tokens, backend):
        x, keys = make(n_tokens, 64)
        out = token_dropout(x.requires_grad_(), keys, 0.3, backend=backend)
        return "torch" if type(out.grad_fn).__name__ == "MulBackward0" else "compiled"

    least = LEAST_COMPILED // (4 * 64)
    assert took(least, "auto") == "compiled"
    assert took(least - 1, "auto") == "torch"
    assert took(1, "cpu") == "compiled"
    assert took(least, "torch") == "torch"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_pytorchs(dtype):
    x, keys = make(40, 12, dtype)
    got = token_dropout(x, keys, 0.5, backend="cpu")
    assert torch.equal(got, x * (2.0 * keep_mask(keys, 12, 0.5)).to(dtype))


@pytest.mark.parametrize(
    ("x", "keys", "message"),
    [((4, 3, 12), (4,), r"x \[4, 3, 12\]"), ((4, 12), (5,), r"keys \[5\]")],
)
def test_wrong_shapes(x, keys, message):
    with pytest.raises(ValueError, match=rf"token_dropout: got .*{message}.*expected \[T, d\]"):
        token_dropout(torch.zeros(x), torch.zeros(keys, dtype=torch.int64), 0.5)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(p):
    with pytest.raises(ValueError, match=r"token_dropout: p: got .*expected 0 or more and less"):
        token_dropout(*make(4, 2), p)
