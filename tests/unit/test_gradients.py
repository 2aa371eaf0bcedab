"""Gradients of single terms against plain backward passes."""

from __future__ import annotations

import pytest
import torch
from test_model import both_classes, fake_detector, fill, model_of  # noqa: F401
from torch import nn

from comics.gradients import gradient_norms, grouped, term_gradients


def test_gradients_of_terms_are_those_of_a_backward_pass_each() -> None:
    torch.manual_seed(0)
    extractor = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    extractor[0].bias.requires_grad_(False)
    output = extractor(torch.randn(5, 3))
    terms = {"first": output.square().sum(), "second": output[0, 0], "none": torch.zeros(())}
    found = dict(term_gradients(terms, extractor))
    for name in ("first", "second"):
        extractor.zero_grad()
        terms[name].backward(retain_graph=True)
        expected = torch.cat([one.grad.flatten() for one in extractor.parameters() if one.requires_grad])
        torch.testing.assert_close(found[name], expected)
    assert found["none"].tolist() == [0] * len(found["first"])
    assert dict(term_gradients(terms, nn.Identity()))["first"].shape == (0,)


@pytest.mark.parametrize("components", [[], ["attention", "coarse", "fine"]])
def test_norms_leave_the_step_as_it_was(components: list[str]) -> None:
    def step(looked: bool) -> tuple[dict, dict]:
        model = model_of(components)
        fill(model)
        losses = model.losses(both_classes(1))
        norms = gradient_norms(losses.terms, model.detector.extractor) if looked else {}
        losses.total.backward()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        return norms, {**state, **{name: one.grad for name, one in model.named_parameters() if one.requires_grad}}

    norms, after = step(True)
    _, untouched = step(False)
    for name, value in untouched.items():
        assert torch.equal(after[name], value), name
    contrastive = {"gradient_loss_coarse", "gradient_loss_intra", "gradient_loss_inter"} if components else set()
    assert set(norms) == {"gradient_detection"} | contrastive
    assert all(value > 0 for value in norms.values())


def test_detection_is_everything_else() -> None:
    terms = {"class": torch.tensor(1.0), "box": torch.tensor(2.0), "loss_intra": torch.tensor(4.0)}
    assert {name: value.item() for name, value in grouped(terms).items()} == {"detection": 3.0, "loss_intra": 4.0}
